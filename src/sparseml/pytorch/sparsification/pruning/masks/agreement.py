"""Keeping the masks of several processes equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from sparseml.pytorch.functional.masks import pack_mask, unpack_mask
from sparseml.pytorch.utils.distributed import collective
from sparseml.pytorch.utils.tensors.sharded import is_sharded

__all__ = ["broadcast_masks", "is_distributed", "sum_over_ranks"]


def is_distributed() -> bool:
    """Whether this process is one of several in an initialised process group."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


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
