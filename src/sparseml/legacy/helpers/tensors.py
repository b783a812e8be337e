"""Moving, converting, sampling and sorting tensors."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from sparseml.pytorch.utils.tensors.stats import kept_dims, tensor_sparsity

#: Environment variable; ``true`` (any case) makes thresholds use less memory and more time.
MEMORY_BOUNDED = "MEMORY_BOUNDED"


def map_tensors(tensors: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return ``tensors`` with ``function`` applied to each.

    Collections keep their kind (``OrderedDict``, mapping, tuple, named tuple); other iterables
    become lists.

    :raises ValueError: for something that is neither a tensor nor a collection
    """
    if isinstance(tensors, Tensor):
        return function(tensors)
    if isinstance(tensors, Mapping):
        kind = OrderedDict if isinstance(tensors, OrderedDict) else dict
        return kind((key, map_tensors(item, function)) for key, item in tensors.items())
    if isinstance(tensors, tuple):
        items = [map_tensors(item, function) for item in tensors]
        return type(tensors)(*items) if hasattr(tensors, "_fields") else tuple(items)
    if isinstance(tensors, Iterable) and not isinstance(tensors, (str, bytes)):
        return [map_tensors(item, function) for item in tensors]
    found = type(tensors).__name__
    raise ValueError(f"expected a tensor, mapping, tuple or iterable of tensors, found {found}")


def tensors_to_device(tensors: Any, device: str | torch.device) -> Any:
    """Return ``tensors`` with every tensor moved to ``device``, as :func:`map_tensors` does."""
    return map_tensors(tensors, lambda tensor: tensor.to(device))


def tensors_to_precision(tensors: Any, full_precision: bool) -> Any:
    """Return ``tensors`` with floats, not integers, as float32, or float16 if not full."""
    dtype = torch.float32 if full_precision else torch.float16
    return map_tensors(tensors, lambda t: t.to(dtype) if t.is_floating_point() else t)


def detach(x: Any) -> Any:
    """Detach a tensor, or every tensor of a list or tuple (nested ones too); else a ValueError."""
    if isinstance(x, Tensor):
        return x.detach()
    if isinstance(x, (list, tuple)):
        return map_tensors(x, Tensor.detach)
    raise ValueError(f"expected a tensor, list or tuple, found {type(x).__name__}")


def tensor_density(tens: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Return the fraction of values that are not zero: ``1 - tensor_sparsity(tens, dim)``."""
    return 1.0 - tensor_sparsity(tens, dim)


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
    grouped = tens.reshape(-1) if dim is None else kept_dims(tens, dim)
    shape = (*grouped.shape[:-1], sample_size)
    index = torch.randint(grouped.shape[-1], shape, device=tens.device, generator=generator)
    return grouped.gather(-1, index)


def memory_aware_threshold(tensor: Tensor, idx: int) -> Tensor:
    """Return the value at index ``idx``, else an IndexError, of the sorted, flat ``tensor`` (0-d).

    It is sorted; where ``MEMORY_BOUNDED`` is ``true`` or memory runs out, ``kthvalue`` finds it.
    """
    values = tensor.reshape(-1)
    if not 0 <= idx < values.numel():
        raise IndexError(f"index {idx} is out of range for a tensor of {values.numel()} values")
    if os.environ.get(MEMORY_BOUNDED, "").lower() != "true":
        with suppress(RuntimeError):
            return values.sort().values[idx]
    return values.kthvalue(idx + 1).values
