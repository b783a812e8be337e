"""Taking entries out of a tensor, its gradient and what an optimizer remembers of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparseml.pytorch.utils.saving.resizing import replace_data

__all__ = ["keep_entries"]

_LOGGER = logging.getLogger(__name__)


def keep_entries(tensor: Tensor, keeps: Mapping[int, Tensor], optimizer: Any = None) -> None:
    """Shrink a parameter or buffer in place to some of its entries.

    The gradient follows, and so does every tensor of the parameter's shape in the optimizer's
    state (momentum, moments), with factored ones that have size 1 where they are reduced.

    :param keeps: dimension -> bool mask over that dimension, True = keep
    :param optimizer: an optimizer or a wrapper with its ``state``; None when there is none yet
    """
    shape = tensor.shape
    indices = {dim: keep.to(tensor.device).nonzero()[:, 0] for dim, keep in keeps.items()}
    grad = None if tensor.grad is None else _select(tensor.grad, indices)
    replace_data(tensor, _select(tensor.detach(), indices), grad)
    state = {} if optimizer is None else optimizer.state
    if tensor in state:
        _shrink_state(state[tensor], shape, indices)


def _select(tensor: Tensor, indices: Mapping[int, Tensor]) -> Tensor:
    for dim, index in indices.items():
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor


def _shrink_state(state: dict[Any, Any], shape: torch.Size, indices: dict[int, Tensor]) -> None:
    for key, value in list(state.items()):
        if not isinstance(value, Tensor) or value.numel() <= 1:
            continue
        if not _fits(value.shape, shape):
            _LOGGER.warning(
                "the optimizer forgets its state of a shrunk parameter: %r of shape %s does not "
                "follow the parameter's shape %s",
                key,
                tuple(value.shape),
                tuple(shape),
            )
            state.clear()
            return
        followed = {dim: index for dim, index in indices.items() if value.shape[dim] > 1}
        state[key] = _select(value, followed)


def _fits(shape: torch.Size, whole: torch.Size) -> bool:
    sizes = zip(shape, whole, strict=False)
    return len(shape) == len(whole) and all(size in (1, full) for size, full in sizes)
