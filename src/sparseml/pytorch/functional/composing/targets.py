"""Densities as numbers of heads and weights, and hashes that never depend on a float."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparseml.pytorch.functional.masks import pack_mask


def require_density(value: Any, where: str) -> float:
    """Return a density, the fraction that is kept.

    :param where: what asks for it, for the message
    :raises ValueError: outside (0, 1], and for what is no number
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0.0 < value <= 1.0:
        raise ValueError(f"{where}: a density must be above 0 and at most 1, found {value!r}")
    return float(value)


def kept_heads(scores: Tensor, density: float, where: str) -> Tensor:
    """Return which heads stay, bool ``[heads]``: all but ``int(heads * (1 - density) + 0.5)``.

    :param scores: float, the lowest go; of equal ones the last
    :param where: whose heads, for the message
    :raises ValueError: if none would stay
    """
    heads = len(scores)
    removed = int(heads * (1.0 - density) + 0.5)
    if removed >= heads:
        raise ValueError(f"{where}: a density of {density:g} leaves none of {heads} heads")
    order = torch.sort(scores, descending=True, stable=True).indices
    keep = torch.zeros(heads, dtype=torch.bool)
    keep[order[: heads - removed].cpu()] = True
    return keep


def canonical_json(content: Any) -> str:
    """Return the one text that a value of plain data has."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_of(content: Any) -> str:
    """Return the SHA-256 of plain data, in hexadecimal digits."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def tensor_hash(tensor: Tensor) -> str:
    """Return the SHA-256 of dtype, shape and bits of a tensor."""
    value = tensor.detach().cpu().contiguous()
    told = hashlib.sha256(f"{value.dtype} {tuple(value.shape)} ".encode())
    told.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of named tensors, whatever their order."""
    return hash_of({name: tensor_hash(tensor) for name, tensor in tensors.items()})


def masks_hash(masks: Mapping[str, Tensor]) -> str:
    """Return a hash of named masks, of their shapes and packed bits."""
    packed = {name: pack_mask(mask.detach().cpu()) for name, mask in masks.items()}
    return hash_of(
        {name: [tensor_hash(bits), list(shape)] for name, (bits, shape) in packed.items()}
    )
