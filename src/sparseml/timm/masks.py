"""The masks in force, by the names of the parameters that they are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.utils.names import unwrap_module

__all__ = ["MaskedEma", "masked_sparsity", "masks_in_force"]

_SUFFIX = ".sparsity_mask"


def _masks(manager: Any) -> Iterator[tuple[str, Tensor, bool]]:
    for modifier in manager.iter_modifiers():
        masks = getattr(modifier, "module_masks", None)
        if isinstance(modifier, BasePruningModifier) and masks is not None:
            names = (name.removesuffix(_SUFFIX) for name in masks.names)
            yield from (
                (name, mask, masks.enabled)
                for name, mask in zip(names, masks.param_masks, strict=True)
            )


def masks_in_force(manager: Any) -> dict[str, Tensor]:
    """Parameter name → mask of zeros and ones, for all pruning modifiers that mask at present.

    A parameter that several modifiers mask has the product of their masks.
    """
    found: dict[str, Tensor] = {}
    for name, mask, enabled in _masks(manager):
        if enabled:
            found[name] = found[name] * mask if name in found else mask
    return found


def masked_sparsity(manager: Any) -> float:
    """The fraction of masked weights among all that the recipe prunes sooner or later."""
    sizes = {name: mask.numel() for name, mask, _ in _masks(manager)}
    masked = sum(int((mask == 0).sum()) for mask in masks_in_force(manager).values())
    return masked / sum(sizes.values()) if sizes else 0.0


class MaskedEma(ModelEmaV3):
    """A moving average of the weights that is zero where the weights are masked.

    A plain average would hold on to weights that were pruned, and would not be sparse.
    """

    @torch.no_grad()
    def update_masked(self, model: nn.Module, manager: Any, step: int) -> None:
        """Average in the present weights, then mask.

        :param model: with or without wrappers around it
        :param step: optimizer steps so far, for the warm-up of the decay
        """
        self.update(unwrap_module(model), step=step)
        params = dict(self.module.named_parameters())
        for name, mask in masks_in_force(manager).items():
            params[name].mul_(mask.to(params[name].device, params[name].dtype))
