"""Counting and sampling the values of tensors."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = [
    "MEMORY_BOUNDED",
    "count_zeros",
    "mask_difference",
    "memory_aware_threshold",
    "tensor_density",
    "tensor_list_sparsity",
    "tensor_sample",
    "tensor_sparsity",
]

#: Environment variable; ``true`` (any case) makes thresholds use less memory and more time.
MEMORY_BOUNDED = "MEMORY_BOUNDED"


def _check_has_values(tensor: Tensor) -> None:
    if tensor.is_meta:
        raise ValueError(
            f"a tensor on the meta device has no values (shape {tuple(tensor.shape)}); "
            "load or initialise the module first"
        )


def _dims(tens: Tensor, dim: int | Sequence[int]) -> list[int]:
    """Normalise ``dim`` to distinct non-negative ints, in the order given."""
    given = [dim] if isinstance(dim, int) else list(dim)
    for one in given:
        if not -tens.ndim <= one < tens.ndim:
            raise ValueError(f"dim {one} is out of range for a tensor of {tens.ndim} dimensions")
    dims = [one % tens.ndim for one in given]
    if len(set(dims)) != len(dims):
        raise ValueError(f"dim names a dimension twice: {given}")
    return dims


def _leading(tens: Tensor, dims: list[int]) -> Tensor:
    """View or copy of ``tens`` as ``[*dims, rest]``, all other dimensions flattened to one."""
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
        grouped = _leading(tens, _dims(tens, dim))
        nonzero, size = torch.count_nonzero(grouped, dim=-1), grouped.shape[-1]
    # Apple's GPUs have no float64
    exact = torch.float32 if tens.device.type == "mps" else torch.float64
    return ((size - nonzero).to(exact) / max(size, 1)).float()


def tensor_density(tens: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Return the fraction of values that are not zero: ``1 - tensor_sparsity(tens, dim)``."""
    return 1.0 - tensor_sparsity(tens, dim)


def count_zeros(tensor: Tensor) -> int:
    """Return how many values are exactly zero.

    :raises ValueError: for a tensor on the meta device, which has no values
    """
    _check_has_values(tensor)
    return tensor.numel() - int(torch.count_nonzero(tensor))


def tensor_list_sparsity(tensors: Iterable[Tensor]) -> float:
    """Return the fraction of zeros among the values of all tensors together (0.0 for none)."""
    zeros = total = 0
    for tensor in tensors:
        total += tensor.numel()
        zeros += count_zeros(tensor)
    return zeros / total if total else 0.0


def tensor_sample(
    tens: Tensor,
    sample_size: int,
    dim: int | Sequence[int] | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw values of ``tens`` at random, with replacement.

    :param sample_size: how many values, at least 1
    :param dim: None for ``[sample_size]`` values of the whole tensor; otherwise the dimensions to
        keep, for ``sample_size`` values of each slice: shape ``[*dims, sample_size]``
    :param generator: source of randomness, on the tensor's device (torch's default if None)
    :raises ValueError: for ``sample_size < 1``, an empty tensor or a bad ``dim``
    """
    if sample_size < 1:
        raise ValueError(f"sample_size must be at least 1, found {sample_size}")
    if tens.numel() == 0:
        raise ValueError(f"cannot sample from an empty tensor of shape {tuple(tens.shape)}")
    grouped = tens.reshape(-1) if dim is None else _leading(tens, _dims(tens, dim))
    shape = (*grouped.shape[:-1], sample_size)
    index = torch.randint(grouped.shape[-1], shape, device=tens.device, generator=generator)
    return grouped.gather(-1, index)


def mask_difference(old_mask: Tensor, new_mask: Tensor) -> Tensor:
    """Compare two 0/1 masks: 1 where newly kept, -1 where newly masked, 0 where the same.

    The result has the dtype of the masks; boolean and unsigned masks give int8.
    """
    if not torch.result_type(old_mask, new_mask).is_signed:
        old_mask, new_mask = old_mask.to(torch.int8), new_mask.to(torch.int8)
    return new_mask - old_mask


def memory_aware_threshold(tensor: Tensor, idx: int) -> Tensor:
    """Return the value at index ``idx`` of the sorted, flattened ``tensor`` (0-d).

    Sorts, which is fast; when the environment variable ``MEMORY_BOUNDED`` is ``true``, or when
    sorting fails (out of memory), selects with ``kthvalue`` instead. Both give the same value.

    :raises IndexError: for an index outside the tensor
    """
    values = tensor.reshape(-1)
    if not 0 <= idx < values.numel():
        raise IndexError(f"index {idx} is out of range for a tensor of {values.numel()} values")
    if os.environ.get(MEMORY_BOUNDED, "").lower() == "true":
        return values.kthvalue(idx + 1).values
    try:
        return values.sort().values[idx]
    except RuntimeError:
        return values.kthvalue(idx + 1).values
