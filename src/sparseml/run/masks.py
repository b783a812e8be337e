"""The masks in force, by the names of their parameters; and masks in files, one bit per weight."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from sparseml.pytorch.functional.masks import pack_mask, unpack_mask
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.utils.saving.files import CheckpointError, read_safetensors, write_safetensors
from sparseml.pytorch.utils.tensors.stats import count_zeros

__all__ = ["MASKS_FILE", "SUFFIX", "masked_sparsity", "masks_in_force", "read_masks", "write_masks"]

MASKS_FILE = "masks.safetensors"
SUFFIX = ".sparsity_mask"
_SHAPES = "shapes"


def _masks(manager: Any) -> Iterator[tuple[str, Tensor, bool]]:
    for modifier in manager.iter_modifiers():
        masks = getattr(modifier, "module_masks", None)
        if isinstance(modifier, BasePruningModifier) and masks is not None:
            names = (name.removesuffix(SUFFIX) for name in masks.names)
            yield from (
                (name, mask, masks.enabled)
                for name, mask in zip(names, masks.param_masks, strict=True)
            )


def masks_in_force(manager: Any) -> dict[str, Tensor]:
    """Return parameter name → mask of zeros and ones, of all pruning modifiers that mask now.

    A parameter that several modifiers mask has the product of their masks.
    """
    found: dict[str, Tensor] = {}
    for name, mask, enabled in _masks(manager):
        if enabled:
            found[name] = found[name] * mask if name in found else mask
    return found


def masked_sparsity(manager: Any) -> float:
    """Return the fraction of masked weights among all that the recipe prunes sooner or later."""
    sizes = {name: mask.numel() for name, mask, _ in _masks(manager)}
    masked = sum(map(count_zeros, masks_in_force(manager).values()))
    return masked / sum(sizes.values()) if sizes else 0.0


def write_masks(path: str | os.PathLike[str], masks: Mapping[str, Tensor]) -> None:
    """Write masks as a safetensors file of packed bits, with the shapes as JSON in its header.

    :param masks: parameter name → zeros and ones
    """
    packed = {name: pack_mask(mask.detach().cpu()) for name, mask in masks.items()}
    shapes = {name: list(shape) for name, (_, shape) in packed.items()}
    bits = {name: data for name, (data, _) in packed.items()}
    write_safetensors(path, bits, {"format": "pt", _SHAPES: json.dumps(shapes)})


def read_masks(path: str | os.PathLike[str], dtype: torch.dtype = torch.bool) -> dict[str, Tensor]:
    """Read what :func:`write_masks` wrote.

    :raises CheckpointError: if the file is damaged or holds no masks
    """
    bits, header = read_safetensors(path)
    try:
        shapes = json.loads(header[_SHAPES])
        return {name: unpack_mask(data, shapes[name], dtype) for name, data in bits.items()}
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} holds no packed masks ({error})") from error
