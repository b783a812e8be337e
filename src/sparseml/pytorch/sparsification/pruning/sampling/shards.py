"""Sharing out the Fisher blocks of several weights over groups and ranks.

Every block belongs to one rank, which holds its Fisher matrix, inverts it and prunes by it. While
gradients are sampled each rank sends the slices that others own to them, and gets its own from
them: ``d (W - 1) / W`` values per gradient for d weights and W ranks, half of what averaging the
gradients (as in training) takes, and far less than summing up whole Fisher matrices of ``d B``
values, which would also have to fit every rank. Memory and work are divided by W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.second_order.blocks import BlockLayout
from sparseml.pytorch.sparsification.pruning.sampling.sample_capture import Gradients
from sparseml.pytorch.utils.distributed import add_up, process_rank, transfer_device
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value


@dataclass(frozen=True)
class Piece:
    """Consecutive blocks of one weight.

    :param index: of the weight
    :param rows: which of its blocks
    """

    index: int
    rows: slice


def share_out(
    pieces: Sequence[Piece], layouts: Sequence[BlockLayout], shares: int
) -> list[list[Piece]]:
    """Cut pieces into shares of about equal memory, in order; a share may stay empty."""
    costs = [layouts[piece.index].block_size ** 2 for piece in pieces]
    total = sum(_count(piece) * cost for piece, cost in zip(pieces, costs, strict=True))
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


def exchange(
    gradients: Iterable[Gradients],
    owners: Sequence[Sequence[Piece]],
    layouts: Sequence[BlockLayout],
    dtype: torch.dtype = torch.float32,
) -> Iterator[list[Tensor]]:
    """Bring the gradients of all ranks to those that own the blocks.

    All ranks take part until the last of them has run out of gradients.

    :param gradients: of this rank
    :param owners: the pieces of each rank
    :param dtype: in which they travel
    :return: for each piece of this rank the blocks of some gradients, ``[n, R, B]``
    """
    own = owners[process_rank()]
    sizes = [_count(piece) * layouts[piece.index].block_size for piece in own]
    stream = iter(gradients)
    while True:
        one = next(stream, None)
        mine = torch.tensor([0 if one is None else one.count], device=transfer_device())
        everyone = [torch.empty_like(mine) for _ in owners]
        dist.all_gather(everyone, mine)
        counts = [int(count) for count in everyone]
        if not any(counts):
            return
        parts = [] if one is None else _parts(one, owners, layouts)
        received = _all_to_all(parts, sum(sizes), counts, dtype)
        for count, rows in zip(counts, received, strict=True):
            if count:
                cut = rows.view(count, -1).split(sizes, dim=1)
                yield [
                    part.reshape(count, _count(piece), -1)
                    for piece, part in zip(own, cut, strict=True)
                ]


def _count(piece: Piece) -> int:
    return int(piece.rows.stop - piece.rows.start)


def _parts(
    gradients: Gradients, owners: Sequence[Sequence[Piece]], layouts: Sequence[BlockLayout]
) -> list[Tensor]:
    """What each rank is sent, ``[n, size]``; every gradient is computed once."""
    count = gradients.count
    parts: list[list[Tensor]] = [[] for _ in owners]
    for index in sorted({piece.index for pieces in owners for piece in pieces}):
        blocks = layouts[index].to_blocks(gradients.of(index).detach())
        for part, pieces in zip(parts, owners, strict=True):
            own = (piece for piece in pieces if piece.index == index)
            part += [blocks[:, piece.rows].reshape(count, -1) for piece in own]
    return [torch.cat(p, dim=1) if p else torch.zeros(count, 0) for p in parts]


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


def add_numbers(number: int) -> int:
    """Return the sum over all ranks."""
    return int(add_up(torch.tensor(number)))


def highest(number: float) -> float:
    """Return the highest of all ranks' numbers."""
    found = torch.tensor(number, dtype=torch.float64, device=transfer_device())
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return float(found)


def full_gradients(
    module: Module, params: Sequence[NamedLayerParam], loss: Callable[[], Tensor]
) -> list[Tensor | None]:
    """Return gradients of sharded parameters, put together, and leave ``.grad`` as it was.

    :param loss: run on all ranks; a gradient is that of the mean of their losses
    :return: for each parameter the gradient in its full shape, or None
    """
    before = [(param, param.grad) for param in module.parameters()]
    try:
        for param, _ in before:
            param.grad = None
        with torch.enable_grad():
            value = loss()
        with torch.autocast(value.device.type, enabled=False):
            value.backward()
        local = [found.param.grad for found in params]
        return [None if grad is None else full_value(grad) for grad in local]
    finally:
        for param, grad in before:
            param.grad = grad
