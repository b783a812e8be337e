"""Looking into nested collections of tensors, and feeding them to a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def iter_tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in a tensor, mapping or iterable, depth first; texts hold none."""
    if isinstance(values, Tensor):
        yield values
        return
    if isinstance(values, Mapping):
        values = values.values()
    if isinstance(values, Iterable) and not isinstance(values, (str, bytes)):
        for value in values:
            yield from iter_tensors(value)


def tensors_on(tensors: Any, device: torch.device | str) -> Any:
    """Return a tensor, a mapping of tensors as a dict, or several of them as a list, on a device;
    what cannot be put on one, such as numbers and texts, stays as it is."""
    if isinstance(tensors, Mapping):
        return {key: tensors_on(value, device) for key, value in tensors.items()}
    if isinstance(tensors, (list, tuple)):
        return [tensors_on(value, device) for value in tensors]
    return tensors.to(device, non_blocking=True) if hasattr(tensors, "to") else tensors


def tensors_batch_size(tensors: Any) -> int:
    """Return the first dimension of the first tensor, depth first, that has any; -1 for none."""
    return next((tensor.shape[0] for tensor in iter_tensors(tensors) if tensor.ndim), -1)


def tensors_module_forward(
    tensors: Any, module: nn.Module | Callable[..., Any], check_feat_lab_inp: bool = True
) -> Any:
    """Call ``module`` on ``tensors``: a tensor as such, a mapping by keyword, others by position.

    :param check_feat_lab_inp: take a list or tuple of two for (features, labels) and feed only
        the features
    :raises ValueError: for something that is neither a tensor nor a collection
    """
    if check_feat_lab_inp and isinstance(tensors, (tuple, list)) and len(tensors) == 2:
        return tensors_module_forward(tensors[0], module, check_feat_lab_inp=False)
    if isinstance(tensors, Tensor):
        return module(tensors)
    if isinstance(tensors, Mapping):
        return module(**tensors)
    if isinstance(tensors, Iterable) and not isinstance(tensors, (str, bytes)):
        return module(*tensors)
    raise ValueError(
        f"cannot feed {type(tensors).__name__} to a module: expected a tensor, mapping or iterable"
    )


def device_of(inputs: Any) -> torch.device:
    """Return the device of the first tensor in a collection, depth first; else a RuntimeError."""
    for tensor in iter_tensors(inputs):
        return tensor.device
    raise RuntimeError(f"no tensor in the inputs, found {type(inputs).__name__}")
