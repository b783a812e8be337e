"""Ranking units of several pools together: sorted ladders, and whole units up to a weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import joined, require_numbers, shuffled

_WINDOW = 50_000


@dataclass(frozen=True, eq=False)
class Ladder:
    """The units of a pool in the order in which they go.

    :param values: their scores, ascending (in any order, as long as only weights are asked for)
    :param size: weights per unit; where these differ, the weights of each unit and all before it
    """

    values: Tensor
    size: int | Tensor

    def weight(self, units: int) -> int:
        """How many weights the first ``units`` have."""
        if isinstance(self.size, int):
            return units * self.size
        return int(self.size[units - 1]) if units else 0

    def within(self, weight: int) -> int:
        """How many units fit into ``weight``."""
        if weight <= 0:
            return 0
        if isinstance(self.size, int):
            units = self.values.numel()
            return min(weight // self.size, units) if self.size else units
        return int(torch.searchsorted(self.size, weight, right=True))

    def count(self, value: float, right: bool) -> int:
        """How many units score below ``value`` (``right``: or equal to it)."""
        return int(torch.searchsorted(self.values, value, right=right))


def ladder_of(pool: Pool) -> Ladder:
    """Sort a pool's units.

    :raises ValueError: for scores that are NaN
    """
    require_numbers(pool.scores)
    if isinstance(pool.size, int):
        return Ladder(sorted_values(pool.scores), pool.size)
    flat = pool.scores.reshape(-1)
    order = _pruning_order(flat)
    return Ladder(_wide(flat[order]), pool.sizes()[order].cumsum(0))


def sorted_values(scores: Tensor) -> Tensor:
    """Return all values in ascending order, at least float32."""
    flat = _wide(scores.detach().reshape(-1))
    if flat.device.type == "cpu":
        return torch.from_numpy(np.sort(flat.numpy()))  # several times faster than torch's
    return flat.sort().values


def shares(ladders: Sequence[Ladder], total: int) -> list[int]:
    """Prune the lowest units of all ladders, up to ``total`` weights.

    Exactly ``total`` where all units have one size that divides it. Among equal scores units of
    earlier ladders, and within one the first, are kept.

    :return: how many units of each ladder go
    """
    if total <= 0:
        return [0] * len(ladders)
    threshold = _threshold(ladders, total)
    below = [ladder.count(threshold, right=False) for ladder in ladders]
    chosen = [ladder.count(threshold, right=True) for ladder in ladders]
    spare = sum(ladder.weight(k) for ladder, k in zip(ladders, chosen, strict=True)) - total
    for place, ladder in enumerate(ladders):
        if spare > 0:
            weight = ladder.weight(chosen[place])
            chosen[place] = max(below[place], ladder.within(weight - spare))
            spare -= weight - ladder.weight(chosen[place])
    return chosen


def _threshold(ladders: Sequence[Ladder], total: int) -> float:
    """The lowest score at and below which ``total`` weights lie.

    By bisection over the bit patterns of floats, which are ordered as the floats are; so it is
    exact and needs no copy of the scores, on whatever devices they are.
    """
    wide = any(ladder.values.dtype == torch.float64 for ladder in ladders)
    number, bits = (np.float64, np.int64) if wide else (np.float32, np.int32)

    def value(place: int) -> float:
        return math.copysign(float(bits(abs(place)).view(number)), place)

    highest = int(number(np.inf).view(bits))
    low, high = -highest - 1, highest
    while high - low > 1:
        middle = (low + high) // 2
        reached = sum(each.weight(each.count(value(middle), right=True)) for each in ladders)
        low, high = (low, middle) if reached >= total else (middle, high)
    return value(high)


def require_possible(
    total: int, sizes: Sequence[int], floors: Sequence[int], caps: Sequence[int]
) -> None:
    """Check that ``total`` units can be pruned within bounds.

    :raises ValueError: naming how many can
    """
    if not sum(floors) <= total <= sum(caps):
        raise ValueError(
            f"{total} of {sum(sizes)} units cannot be pruned: the limits per tensor allow "
            f"{sum(floors)} to {sum(caps)}"
        )


def global_counts(
    scores: Sequence[Tensor],
    total: int,
    floors: Sequence[int] | None = None,
    caps: Sequence[int] | None = None,
) -> list[int]:
    """Rank the units of all tensors together and prune the lowest ``total``, within bounds.

    With bounds this is still the choice of lowest summed score: the floors are taken from the
    lowest of each tensor, what lies beyond a cap is out of reach, and the rest compete. Among
    equal scores those of earlier tensors are kept, within a tensor the first.

    :param scores: unit scores per tensor, any shapes, comparable with each other
    :param floors: at least this many in each tensor (default 0)
    :param caps: at most this many in each tensor (default all)
    :return: counts with ``floors[i] <= counts[i] <= caps[i]`` and a sum of exactly ``total``
    :raises ValueError: for NaN scores, or when ``total`` cannot be met within the bounds
    """
    sizes = [tensor.numel() for tensor in scores]
    floors = [0] * len(sizes) if floors is None else floors
    caps = sizes if caps is None else caps
    if not len(floors) == len(caps) == len(sizes):
        raise ValueError(f"{len(sizes)} tensors, {len(floors)} floors and {len(caps)} caps")
    require_possible(total, sizes, floors, caps)
    for tensor in scores:
        require_numbers(tensor)
    ladders = [
        Ladder(sorted_values(tensor)[floor:cap], 1)
        for tensor, floor, cap in zip(scores, floors, caps, strict=True)
    ]
    added = shares(ladders, total - sum(floors))
    return [floor + more for floor, more in zip(floors, added, strict=True)]


def lowest_weights(
    pools: Sequence[Pool],
    total: int,
    *,
    first: Sequence[int] | None = None,
    last: Sequence[int] | None = None,
    spread_ties: bool = False,
) -> list[Tensor]:
    """Prune the lowest units of all pools, whatever their sizes, up to the nearest weight.

    A unit too large for what is left is passed over in favour of the next that fits; or it goes,
    and higher ones that fit into the excess stay: whichever comes nearer.

    :param total: how many weights shall go
    :param first: so many of the lowest units of each pool go in any case
    :param last: at most so many units of each pool go
    :return: per pool a bool of the shape of its scores, True = keep
    :raises ValueError: for scores that are NaN
    """
    for pool in pools:
        require_numbers(pool.scores)
    forced, open_ = _forced_and_open(pools, first, last)
    keep = [torch.ones(pool.units, dtype=torch.bool, device=pool.scores.device) for pool in pools]
    for places, mask, pool in zip(forced, keep, pools, strict=True):
        mask[places] = False
        total -= int(pool.sizes()[places].sum())
    if total > 0 and any(map(len, open_)):
        flat = joined([pool.scores.reshape(-1)[at] for pool, at in zip(pools, open_, strict=True)])
        sizes = [pool.sizes()[at].to(flat.device) for pool, at in zip(pools, open_, strict=True)]
        goes = _lowest_up_to(flat, torch.cat(sizes), total, spread_ties)
        parts = goes.split([len(places) for places in open_])
        for mask, places, part in zip(keep, open_, parts, strict=True):
            mask[places] = ~part.to(mask.device)
    return [mask.reshape(pool.scores.shape) for mask, pool in zip(keep, pools, strict=True)]


def _forced_and_open(
    pools: Sequence[Pool], first: Sequence[int] | None, last: Sequence[int] | None
) -> tuple[list[Tensor], list[Tensor]]:
    """Positions of the units that go in any case, and, ascending, of those that may go."""
    forced, open_ = [], []
    for place, pool in enumerate(pools):
        least = max(pool.gone, first[place] if first is not None else 0)
        most = max(least, last[place] if last is not None else pool.units)
        scores = pool.scores.reshape(-1)
        if least == pool.gone and most == pool.units:
            gone = scores.isneginf() & (pool.gone > 0)
            forced.append(gone.nonzero()[:, 0])
            open_.append((~gone).nonzero()[:, 0])
            continue
        order = _pruning_order(scores)
        forced.append(order[:least])
        open_.append(order[least:most].sort().values)
    return forced, open_


def _lowest_up_to(scores: Tensor, sizes: Tensor, total: int, spread_ties: bool) -> Tensor:
    """Which units go."""
    goes = torch.zeros_like(scores, dtype=torch.bool)
    if spread_ties:
        lowest = (scores == scores.min()).nonzero()[:, 0]
        if int(sizes[lowest].sum()) > total:
            order = shuffled(lowest)
            goes[order] = nearest_fill(sizes[order], total)
            return goes
    for window in (_WINDOW, len(scores)):
        goes, near = _around(scores, sizes, total, window)
        left = total - int(sizes[goes].sum())
        order = near[_pruning_order(scores[near])]
        goes[order] = nearest_fill(sizes[order], left)
        if len(near) == len(scores) or int(sizes[goes].sum()) == total:
            break
    return goes


def _around(scores: Tensor, sizes: Tensor, total: int, window: int) -> tuple[Tensor, Tensor]:
    """Find where ``total`` is reached without sorting everything.

    :return: which units are lower than about ``window`` before that; and the positions of those
        up to about ``window`` after it
    """
    if len(scores) <= 2 * window:
        return torch.zeros_like(scores, dtype=torch.bool), torch.arange(
            len(scores), device=scores.device
        )
    bits = scores.float().view(torch.int32)
    # the bits of floats are ordered as they are; half of the bits say where to look
    bucket = torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits) >> 16
    bucket -= bucket.min()
    units = bucket.bincount().cumsum(0)
    weights = bucket.bincount(sizes.double()).cumsum(0)
    at = int(torch.searchsorted(weights, float(total)))
    rank = int(units[min(at, len(units) - 1)])
    low = int(torch.searchsorted(units, rank - window))
    high = int(torch.searchsorted(units, rank + window))
    return bucket < low, ((bucket >= low) & (bucket <= high)).nonzero()[:, 0]


def nearest_fill(sizes: Tensor, total: int) -> Tensor:
    """Choose units so that their sizes add up to nearly ``total``, early ones first.

    Units are passed over that no longer fit; or taken beyond the total, and late ones given back
    that fit into the excess. The nearer of the two may at last exchange one unit.

    :param sizes: int64 in the order of preference
    :return: bool, shape of ``sizes``
    """
    device, sizes = sizes.device, sizes.cpu()
    everything = int(sizes.sum())
    under = _fill(sizes, total)
    short = min(total, everything) - int(sizes[under].sum())
    if short <= 0:
        return under.to(device)
    over = ~_fill(sizes.flip(0), everything - total).flip(0)
    excess = int(sizes[over].sum()) - total
    if excess < short:
        under, short = over, -excess
    return _exchanged(sizes, under, short).to(device)


def _fill(sizes: Tensor, room: int) -> Tensor:
    """Take units in order, passing over those that no longer fit."""
    taken = torch.zeros(len(sizes), dtype=torch.bool)
    waiting = torch.arange(len(sizes))
    while len(waiting):
        reached = sizes[waiting].cumsum(0)
        fit = int(torch.searchsorted(reached, room, right=True))
        taken[waiting[:fit]] = True
        room -= int(reached[fit - 1]) if fit else 0
        waiting = waiting[fit:]
        waiting = waiting[sizes[waiting] <= room]
    return taken


def _exchanged(sizes: Tensor, taken: Tensor, short: int) -> Tensor:
    """Take one more unit, or give one back, or both, if that comes nearer.

    :param short: what is missing; negative: what is too much
    """
    nothing = torch.zeros(1, dtype=sizes.dtype)
    back = torch.cat([nothing, sizes[taken].unique()])
    more = torch.cat([nothing, sizes[~taken].unique()])
    off = (short + back.unsqueeze(1) - more).abs()
    best = int(off.argmin())
    if int(off.flatten()[best]) == abs(short):
        return taken
    given, got = int(back[best // len(more)]), int(more[best % len(more)])
    exchanged = taken.clone()
    if given:
        exchanged[(taken & (sizes == given)).nonzero()[-1]] = False
    if got:
        exchanged[(~taken & (sizes == got)).nonzero()[0]] = True
    return exchanged


def _pruning_order(scores: Tensor) -> Tensor:
    """Positions from the lowest score to the highest; of equal scores the last come first."""
    return scores.sort(descending=True, stable=True).indices.flip(0)


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype in (torch.float32, torch.float64) else values.float()
