"""Keeping the masks of several processes equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from sparseml.pytorch.functional.masks import pack_mask, unpack_mask
from sparseml.pytorch.utils.distributed import collective
from sparseml.pytorch.utils.sharded import is_sharded

__all__ = [
    "any_rank",
    "broadcast_masks",
    "is_distributed",
    "process_rank",
    "sum_over_ranks",
    "transfer_device",
    "world_size",
]


def is_distributed() -> bool:
    """Whether this process is one of several in an initialised process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


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
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def broadcast_masks(masks: Sequence[Tensor]) -> list[Tensor]:
    """The masks of rank 0, on every rank; in a run of one process the masks as given.

    They travel in one message of one bit per weight.

    :param masks: 0/1 masks, of equal shapes on all ranks
    """
    if not masks or not is_distributed():
        return list(masks)
    packed = [pack_mask(mask)[0].to(masks[0].device) for mask in masks]
    message = torch.cat(packed)
    with collective("exchanging masks"):
        dist.broadcast(message, src=0)
    pieces = message.split([piece.numel() for piece in packed])
    return [
        unpack_mask(piece.to(mask.device), mask.shape, mask.dtype)
        for piece, mask in zip(pieces, masks, strict=True)
    ]


def sum_over_ranks(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Sums over all ranks, as new tensors; in a run of one process the tensors as given.

    So are those that the ranks share: what they hold parts of has been summed up.
    """
    if not is_distributed() or any(is_sharded(tensor) for tensor in tensors):
        return list(tensors)
    sums = [tensor.clone() for tensor in tensors]
    with collective("adding up what ranks have collected"):
        for total in sums:
            dist.all_reduce(total)
    return sums
