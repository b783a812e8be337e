"""Keeping the masks of several processes equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from sparseml.pytorch.functional.masks import pack_mask, unpack_mask
from sparseml.pytorch.utils.distributed import collective, is_distributed

__all__ = ["broadcast_masks"]


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
