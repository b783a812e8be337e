"""A moving average of the weights that keeps to the masks."""

from __future__ import annotations

from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from sparseml.pytorch.utils.names import unwrap_module
from sparseml.run.masks import masks_in_force

__all__ = ["MaskedEma"]


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
