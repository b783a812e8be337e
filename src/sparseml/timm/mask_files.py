"""Masks in files, one bit per weight."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import torch
from torch import Tensor

from sparseml.pytorch.functional.masks import pack_mask, unpack_mask
from sparseml.pytorch.utils.saving.files import CheckpointError, read_safetensors, write_safetensors

__all__ = ["read_masks", "write_masks"]

_SHAPES = "shapes"


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
