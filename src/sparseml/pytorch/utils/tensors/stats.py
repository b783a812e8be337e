"""Counting the zeros of tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def _check_has_values(tensor: Tensor) -> None:
    if tensor.is_meta:
        raise ValueError(
            f"a tensor on the meta device has no values (shape {tuple(tensor.shape)}); "
            "load or initialise the module first"
        )


def kept_dims(tens: Tensor, dim: int | Sequence[int]) -> Tensor:
    """Return ``tens`` as ``[*dims, rest]``: the dimensions kept, in the order given, and one more.

    :raises ValueError: for a dimension that is out of range or named twice
    """
    given = [dim] if isinstance(dim, int) else list(dim)
    for one in given:
        if not -tens.ndim <= one < tens.ndim:
            raise ValueError(f"dim {one} is out of range for a tensor of {tens.ndim} dimensions")
    dims = [one % tens.ndim for one in given]
    if len(set(dims)) != len(dims):
        raise ValueError(f"dim names a dimension twice: {given}")
    rest = [d for d in range(tens.ndim) if d not in dims]
    size = math.prod(tens.shape[d] for d in rest)
    return tens.permute(*dims, *rest).reshape(*(tens.shape[d] for d in dims), size)


def tensor_sparsity(tens: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Return the fraction of values that are exactly zero, as float32.

    Values are counted as integers, so the result is right to the last bit for a tensor of any
    size and dtype. ``-0.0`` is a zero, NaN is not. A tensor (or slice) without elements has
    sparsity 0: there is nothing in it that was pruned.

    :param dim: None for one number over the whole tensor (0-d result); otherwise the dimension
        or dimensions to keep, giving a tensor of those sizes, in the order given
    :raises ValueError: for a dimension that is out of range or named twice, and for a tensor on
        the meta device, which has no values
    """
    _check_has_values(tens)
    if dim is None:
        nonzero, size = torch.count_nonzero(tens), tens.numel()
    else:
        grouped = kept_dims(tens, dim)
        nonzero, size = torch.count_nonzero(grouped, dim=-1), grouped.shape[-1]
    # Apple's GPUs have no float64
    exact = torch.float32 if tens.device.type == "mps" else torch.float64
    return ((size - nonzero).to(exact) / max(size, 1)).float()


def count_zeros(tensor: Tensor) -> int:
    """Return how many values are exactly zero; a ValueError on the meta device, which has none."""
    _check_has_values(tensor)
    return tensor.numel() - int(torch.count_nonzero(tensor))


def tensor_list_sparsity(tensors: Iterable[Tensor]) -> float:
    """Return the fraction of zeros among the values of all tensors together (0.0 for none)."""
    zeros = total = 0
    for tensor in tensors:
        total += tensor.numel()
        zeros += count_zeros(tensor)
    return zeros / total if total else 0.0


def mask_difference(old_mask: Tensor, new_mask: Tensor) -> Tensor:
    """Compare two 0/1 masks: 1 where newly kept, -1 where newly masked, 0 where the same.

    The result has the dtype of the masks; boolean and unsigned masks give int8.
    """
    if not torch.result_type(old_mask, new_mask).is_signed:
        old_mask, new_mask = old_mask.to(torch.int8), new_mask.to(torch.int8)
    return new_mask - old_mask
