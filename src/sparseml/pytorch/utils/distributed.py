"""Random seeds and small helpers for runs of several processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

__all__ = ["collective", "record", "set_deterministic_seeds", "torch_distributed_zero_first"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def set_deterministic_seeds(seed: int = 0) -> None:
    """Seed Python, numpy and torch (all devices) and make cuDNN deterministic."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  users' data pipelines draw from the global generator
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextmanager
def torch_distributed_zero_first(local_rank: int | None) -> Iterator[None]:
    """Let local rank 0 run the block before the other processes of a distributed run.

    :param local_rank: rank on this machine; -1 or None for a run of one process
    """
    waits = local_rank is not None and dist.is_available() and dist.is_initialized()
    if waits and local_rank not in (-1, 0):
        dist.barrier()
    try:
        yield
    finally:
        if waits and local_rank == 0:
            dist.barrier()


@contextmanager
def collective(doing: str) -> Iterator[None]:
    """Say what this process was doing when another one failed to take part.

    A process that has died is noticed at once by the others, one that is stuck after the timeout
    of the process group.

    :param doing: as in "exchanging masks"
    :raises RuntimeError: with torch's message, in place of torch's error
    """
    try:
        yield
    except RuntimeError as error:  # DistBackendError and the like are subclasses
        rank, world = dist.get_rank(), dist.get_world_size()
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RuntimeError(
            f"rank {rank} of {world} cannot go on {doing}: another process of this run has died, "
            f"or did not take part in time; see its log for the cause. torch says: {first}"
        ) from error


def record(func: _Function) -> _Function:
    """Decorate the main function of a process that torchrun starts, to report its errors.

    ``func`` itself where torch has no elastic launcher.
    """
    try:
        from torch.distributed.elastic.multiprocessing.errors import record as torch_record
    except ImportError:
        return func
    return torch_record(func)  # type: ignore[return-value]
