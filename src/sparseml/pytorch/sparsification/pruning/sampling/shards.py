"""Sharing out the Fisher blocks of several weights over groups and ranks.

Every block belongs to one rank, which holds its Fisher matrix, inverts it and prunes by it. While
gradients are sampled each rank sends the slices that others own to them, and gets its own from
them: ``d (W - 1) / W`` values per gradient for d weights and W ranks, half of what averaging the
gradients (as in training) takes, and far less than summing up whole Fisher matrices of ``d B``
values, which would also have to fit every rank. Memory and work are divided by W.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from sparseml.pytorch.functional.block_layout import BlockLayout
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import Gradients
from sparseml.pytorch.utils.distributed import (
    add_up,
    is_distributed,
    process_rank,
    transfer_device,
    world_size,
)

__all__ = ["Piece", "exchange", "join_pieces", "rows_of", "share_out", "whole"]


@dataclass(frozen=True)
class Piece:
    """Consecutive blocks of one weight.

    :param index: of the weight
    :param rows: which of its blocks
    """

    index: int
    rows: slice

    @property
    def count(self) -> int:
        """How many blocks."""
        return int(self.rows.stop - self.rows.start)


def whole(index: int, layout: BlockLayout) -> Piece:
    """All blocks of a weight."""
    return Piece(index, slice(0, layout.num_blocks))


def share_out(
    pieces: Sequence[Piece], layouts: Sequence[BlockLayout], shares: int
) -> list[list[Piece]]:
    """Cut pieces into shares of about equal memory, in order; a share may stay empty."""
    costs = [layouts[piece.index].block_size ** 2 for piece in pieces]
    total = sum(piece.count * cost for piece, cost in zip(pieces, costs, strict=True))
    result: list[list[Piece]] = [[] for _ in range(shares)]
    done = 0
    for piece, cost in zip(pieces, costs, strict=True):
        start = piece.rows.start
        while start < piece.rows.stop:
            share = done * shares // total
            left = -(-total * (share + 1) // shares) - done
            stop = min(piece.rows.stop, start + max(1, round(left / cost)))
            result[share].append(Piece(piece.index, slice(start, stop)))
            done += (stop - start) * cost
            start = stop
    return result


def rows_of(piece: Piece, layouts: Sequence[BlockLayout], tensor: Tensor) -> Tensor:
    """The blocks of a tensor ``[*batch, *shape]``, as ``[*batch, R, B]``."""
    return layouts[piece.index].to_blocks(tensor)[..., piece.rows, :]


def exchange(
    gradients: Iterable[Gradients],
    owners: Sequence[Sequence[Piece]],
    layouts: Sequence[BlockLayout],
    dtype: torch.dtype = torch.float32,
    same: bool = False,
) -> Iterator[tuple[int, list[Tensor]]]:
    """Bring the gradients of all ranks to those that own the blocks.

    All ranks take part until the last of them has run out of gradients.

    :param gradients: of this rank
    :param owners: the pieces of each rank
    :param dtype: in which they travel
    :param same: the gradients are the same on all ranks, so that nothing has to travel
    :return: number of gradients and, for each piece of this rank, their blocks ``[n, R, B]``
    """
    own = owners[process_rank()]
    if same or not is_distributed():
        for found in gradients:
            yield found.count, [rows_of(p, layouts, found.of(p.index)) for p in own]
        return
    stream = iter(gradients)
    while True:
        one = next(stream, None)
        counts = _gather_numbers(0 if one is None else one.count)
        if not any(counts):
            return
        parts = [] if one is None else _parts(one, owners, layouts)
        received = _all_to_all(parts, _size(own, layouts), counts, dtype)
        for count, rows in zip(counts, received, strict=True):
            if count:
                yield count, _cut(rows.view(count, -1), own, layouts)


def join_pieces(
    found: Sequence[tuple[Piece, Tensor]],
    indices: Sequence[int],
    layouts: Sequence[BlockLayout],
    like: Sequence[Tensor],
) -> list[Tensor]:
    """Put the blocks that all ranks hold together to tensors of the weights' shapes.

    Blocks that nobody holds are zero. Every block is held once, so that adding up the ranks' shares
    is exact.

    :param found: pieces of this rank with their blocks ``[R, B]``
    :param indices: the weights to put together
    :param like: tensors that tell the device, one per weight
    """
    dtype = _common_dtype([blocks for _, blocks in found])
    tensors = {
        i: torch.zeros(
            layouts[i].num_blocks, layouts[i].block_size, dtype=dtype, device=like[i].device
        )
        for i in indices
    }
    for piece, blocks in found:
        tensors[piece.index][piece.rows] = blocks.to(like[piece.index].device, dtype)
    return [layouts[i].from_blocks(add_up(tensors[i])) for i in indices]


def _common_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    flag = torch.tensor([float(wide)], device=transfer_device())
    return torch.float64 if bool(add_up(flag)) else torch.float32


def _size(pieces: Sequence[Piece], layouts: Sequence[BlockLayout]) -> int:
    return sum(piece.count * layouts[piece.index].block_size for piece in pieces)


def _parts(
    gradients: Gradients, owners: Sequence[Sequence[Piece]], layouts: Sequence[BlockLayout]
) -> list[Tensor]:
    """What each rank is sent, ``[n, size]``; every gradient is computed once."""
    count = gradients.count
    parts: list[list[Tensor]] = [[] for _ in owners]
    by_weight = sorted(
        ((piece, rank) for rank, pieces in enumerate(owners) for piece in pieces),
        key=lambda found: found[0].index,
    )
    for index, group in itertools.groupby(by_weight, key=lambda found: found[0].index):
        blocks = layouts[index].to_blocks(gradients.of(index).detach())
        for piece, rank in group:
            parts[rank].append(blocks[:, piece.rows].reshape(count, -1))
    return [torch.cat(p, dim=1) if p else torch.zeros(count, 0) for p in parts]


def _cut(rows: Tensor, pieces: Sequence[Piece], layouts: Sequence[BlockLayout]) -> list[Tensor]:
    sizes = [piece.count * layouts[piece.index].block_size for piece in pieces]
    return [
        part.reshape(len(rows), piece.count, -1)
        for piece, part in zip(pieces, rows.split(sizes, dim=1), strict=True)
    ]


def _gather_numbers(number: int) -> list[int]:
    mine = torch.tensor([number], device=transfer_device())
    everyone = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(everyone, mine)
    return [int(one) for one in everyone]


def _all_to_all(
    parts: Sequence[Tensor], own_size: int, counts: Sequence[int], dtype: torch.dtype
) -> list[Tensor]:
    """What every rank sent here, flat."""
    device = transfer_device()
    sent = [part.to(device, dtype).flatten() for part in parts]
    outgoing = torch.cat(sent) if sent else torch.zeros(0, dtype=dtype, device=device)
    out_sizes = [part.numel() for part in sent] or [0] * len(counts)
    in_sizes = [count * own_size for count in counts]
    incoming = torch.empty(sum(in_sizes), dtype=dtype, device=device)
    dist.all_to_all_single(incoming, outgoing, in_sizes, out_sizes)
    return list(incoming.split(in_sizes))
