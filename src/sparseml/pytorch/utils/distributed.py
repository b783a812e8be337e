"""Which of how many processes this one is, what they tell each other, and random seeds.

In a run of one process every function here answers at once, without a process group.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from sparseml.pytorch.utils.tensors.sharded import is_sharded

_Function = TypeVar("_Function", bound=Callable[..., Any])


def is_distributed() -> bool:
    """Return whether this process is one of several in an initialised process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if is_distributed() else 1


def process_rank() -> int:
    """Return the rank of this process, 0 if it is the only one."""
    return dist.get_rank() if is_distributed() else 0


def transfer_device() -> torch.device:
    """Return where tensors must be to be sent: on the GPU for backends that know nothing else."""
    backend = dist.get_backend() if is_distributed() else "gloo"
    only_gpu = "nccl" in backend and "gloo" not in backend
    return torch.device("cuda", torch.cuda.current_device()) if only_gpu else torch.device("cpu")


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


def any_rank(value: bool) -> bool:
    """Return whether ``value`` is true on any rank."""
    if not is_distributed():
        return value
    flag = torch.tensor(int(value), device=transfer_device())
    with collective("asking the others whether all is well"):
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def add_up(tensor: Tensor) -> Tensor:
    """Return the sum over all ranks, on the device of ``tensor``; with one process, as given."""
    if not is_distributed():
        return tensor
    total = tensor.to(transfer_device(), copy=True)
    with collective("adding up what ranks have collected"):
        dist.all_reduce(total)
    return total.to(tensor.device)


def sum_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return sums over all ranks, as new tensors; in a run of one process the tensors as given.

    So are those that the ranks share: what they hold parts of has been summed up.
    """
    if not is_distributed() or any(is_sharded(tensor) for tensor in tensors):
        return list(tensors)
    sums = [tensor.clone() for tensor in tensors]
    with collective("adding up what ranks have collected"):
        for total in sums:
            dist.all_reduce(total)
    return sums


def gather_objects(value: Any) -> list[Any]:
    """Return a picklable value of each process, by rank, in every process."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * world_size()
    with collective("telling the others"):
        dist.all_gather_object(gathered, value)
    return gathered


def difference(each: Sequence[Mapping[str, Any]], ranks: Sequence[int] | None = None) -> str | None:
    """Return what differs first between what ranks have been given, and who has what.

    :param each: name → plain data, by rank
    :param ranks: which these are; all by default
    :return: one line; None if all have been given the same
    """
    for name in dict.fromkeys(name for one in each for name in one):
        values = [one.get(name) for one in each]
        first, *others = zip(ranks or range(len(values)), values, strict=True)
        for rank, value in others:
            if value != first[1]:
                own, other = _shown(first[1], value), _shown(value, first[1])
                return (
                    f"{name} differs between processes: {own} in that of rank {first[0]}, {other} "
                    f"in that of rank {rank}"
                )
    return None


def _shown(value: Any, other: Any) -> str:
    """Return a value, of several lines the first that another has not."""
    lines, others = (str(one).splitlines() for one in (value, other))
    if len(lines) < 2:
        return repr(value)
    return repr(next((line.strip() for line in lines if line not in others), f"{len(lines)} lines"))


@contextmanager
def torch_distributed_zero_first(local_rank: int | None) -> Iterator[None]:
    """Let local rank 0 (None or -1 for a run of one process) run the block before all others."""
    waits = local_rank is not None and dist.is_available() and dist.is_initialized()
    if waits and local_rank not in (-1, 0):
        dist.barrier()
    try:
        yield
    finally:
        if waits and local_rank == 0:
            dist.barrier()


def set_deterministic_seeds(seed: int = 0) -> None:
    """Seed Python, numpy and torch (all devices) and make cuDNN deterministic."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  users' data pipelines draw from the global generator
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def record(func: _Function) -> _Function:
    """Decorate the main function of a process that torchrun starts, to report its errors."""
    try:
        from torch.distributed.elastic.multiprocessing.errors import record as torch_record
    except ImportError:
        return func
    return torch_record(func)  # type: ignore[return-value]
