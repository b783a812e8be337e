"""What must not be shrunk: parameters whose shapes a parallel wrapper has noted down."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

__all__ = ["require_own_gradients", "require_whole"]


def require_own_gradients(tensors: Iterable[Tensor]) -> None:
    """Check that no ``DistributedDataParallel`` averages the gradients of these parameters.

    It would go on waiting for gradients of the old shapes, and silently average the new ones no
    more, so that the ranks drift apart.

    :raises RuntimeError: if one does, in a run of more than one process
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
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
