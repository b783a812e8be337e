"""Taking entries out of a tensor, its gradient and what an optimizer remembers of it.

Parameters whose shapes a parallel wrapper has noted down must stay as they are.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sparseml.pytorch.utils.distributed import is_distributed
from sparseml.pytorch.utils.optimizers import states_of
from sparseml.pytorch.utils.saving.resizing import replace_data

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
    for state in states_of(optimizer):
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
        sizes = zip(value.shape, shape, strict=False)
        if value.ndim != len(shape) or any(size not in (1, whole) for size, whole in sizes):
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


def require_own_gradients(tensors: Iterable[Tensor]) -> None:
    """Check that no ``DistributedDataParallel`` averages the gradients of these parameters.

    It would go on waiting for gradients of the old shapes, and silently average the new ones no
    more, so that the ranks drift apart.

    :raises RuntimeError: if one does, in a run of more than one process
    """
    if not is_distributed():
        return
    shrinking = {id(tensor) for tensor in tensors}
    # a parameter does not know who averages its gradient, and the wrapper need not be at hand
    wrappers = [item for item in gc.get_objects() if type(item) is DistributedDataParallel]
    if any(id(param) in shrinking for wrapper in wrappers for param in wrapper.parameters()):
        raise RuntimeError(
            "parameters cannot be thinned in the middle of training inside DistributedDataParallel,"
            " which keeps buckets of the old shapes; thin at the end of the run (no update_epochs),"
            " or before wrapping"
        )


def require_whole(name: str, tensor: Tensor) -> None:
    """Check that a parameter is not spread over several processes.

    :raises RuntimeError: naming it, if it is
    """
    if hasattr(tensor, "device_mesh") and hasattr(tensor, "placements"):
        raise RuntimeError(
            f"{name} is sharded over several processes and cannot be thinned; thin before sharding"
        )
