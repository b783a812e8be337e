"""Which of how many processes this one is, and what they tell each other."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from sparseml.pytorch.sparsification.pruning.masks.agreement import is_distributed
from sparseml.pytorch.utils.distributed import collective

__all__ = ["add_up", "any_rank", "process_rank", "transfer_device", "world_size"]


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if is_distributed() else 1


def process_rank() -> int:
    """The rank of this process, 0 if it is the only one."""
    return dist.get_rank() if is_distributed() else 0


def transfer_device() -> torch.device:
    """Where tensors must be to be sent: the GPU for backends that know nothing else, or the CPU."""
    backend = dist.get_backend() if is_distributed() else "gloo"
    only_gpu = "nccl" in backend and "gloo" not in backend
    return torch.device("cuda", torch.cuda.current_device()) if only_gpu else torch.device("cpu")


def any_rank(value: bool) -> bool:
    """Whether ``value`` is true on any rank."""
    if not is_distributed():
        return value
    flag = torch.tensor(int(value), device=transfer_device())
    with collective("asking the others whether all is well"):
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def add_up(tensor: Tensor) -> Tensor:
    """The sum over all ranks, on the device of ``tensor``; in a run of one process, as given."""
    if not is_distributed():
        return tensor
    total = tensor.to(transfer_device(), copy=True)
    with collective("adding up what ranks have collected"):
        dist.all_reduce(total)
    return total.to(tensor.device)
