"""A joint ranking that holds sparse tensors back, so that dense ones can still catch up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from sparseml.pytorch.functional.budgets.base import (
    Pools,
    Target,
    common_target,
    one_size,
    whole,
)
from sparseml.pytorch.functional.budgets.ranking import Ladder, ladder_of, shares
from sparseml.pytorch.functional.budgets.rules import Global, lowest_units


@dataclass(frozen=True)
class Reserving(Global):
    """A :class:`Global` budget as in Intel Neural Compressor's ``snip_momentum``.

    No tensor gets sparser than ``max_sparsity``. That none stays less sparse than ``min_sparsity``
    is seen to in advance: where a tensor would use up what the others still need to get there by
    the end of the schedule, it is held back. Whole units are rounded down.

    :param max_sparsity: a target beyond it prunes as much as it allows
    :param min_sparsity: holds when the target is ``final``
    """

    max_sparsity: float = 0.98

    def check(self, pools: Pools, target: Target) -> None:
        common_target(target)

    def choose(self, pools: Pools, target: Target, spread_ties: bool = False) -> list[Tensor]:
        sparsity = common_target(target)
        if not pools:
            return []
        even = one_size(pools)
        race = _Race(self, pools, sparsity, quantum=int(pools[0].size) if even else 1)
        counts = race.run()
        if even:  # what was held back for nothing goes, too
            total = min(max(race.total, sum(counts)), sum(race.caps))
        else:
            total = race.total - sum(pool.missing for pool in pools)
        return lowest_units(pools, total, counts, race.caps)


class _Race:
    """The passes over all pools, in quanta: units where all have one size, weights elsewhere."""

    def __init__(self, budget: Reserving, pools: Pools, sparsity: float, quantum: int) -> None:
        self.pools = pools
        self.ladders = [
            Ladder(ladder.values, 1) if quantum > 1 else ladder for ladder in map(ladder_of, pools)
        ]
        self.sizes = [Fraction(pool.weights, quantum) for pool in pools]
        self.highest = Fraction(str(budget.max_sparsity))
        self.lowest = Fraction(str(budget.min_sparsity))
        final = sparsity if budget.final is None else max(budget.final, sparsity)
        self.final = Fraction(str(final))
        self.total = whole(sum(self.sizes, Fraction(0)) * Fraction(str(sparsity)))
        self.pruned = [
            pool.missing + ladder.weight(pool.gone)
            for pool, ladder in zip(pools, self.ladders, strict=True)
        ]
        self.caps = [
            max(ladder.within(math.floor(size * self.highest) - pool.missing), pool.gone)
            for pool, ladder, size in zip(pools, self.ladders, self.sizes, strict=True)
        ]

    def run(self) -> list[int]:
        """How many units of each pool go, at least those that are gone."""
        counts = [pool.gone for pool in self.pools]
        if self.total <= 0:
            return counts
        active, left = list(range(len(self.pools))), self.total
        while left >= 1 and active:
            missing = sum(self.pools[place].missing for place in active)
            lowest = shares([self.ladders[place] for place in active], left - missing)
            frozen = []
            for place, count in zip(active, lowest, strict=True):
                allowed = self._allowed(place, max(count, self.pools[place].gone))
                if allowed < count:
                    frozen.append(place)
                counts[place] = allowed
                self.pruned[place] = self._weight(place, allowed)
                if place in frozen:
                    left -= self.pruned[place]
            if not frozen:
                break
            active = [place for place in active if place not in frozen]
        return counts

    def _weight(self, place: int, count: int) -> int:
        return self.pools[place].missing + self.ladders[place].weight(count)

    def _allowed(self, place: int, count: int) -> int:
        """How many of the ``count`` units that a pool would lose it may lose."""
        allowed = min(count, self.caps[place])
        weight = self._weight(place, allowed)
        if allowed == count and weight < self.lowest * self.sizes[place]:
            return allowed
        pruned = [*self.pruned]
        pruned[place] = weight
        pairs = list(zip(pruned, self.sizes, strict=True))
        capped = allowed < count and self.highest > self.final
        if not capped and all(gone <= self.final * size for gone, size in pairs):
            return allowed
        behind = [(gone, size) for gone, size in pairs if gone < self.lowest * size]
        gap = math.floor(self.lowest * sum(size for _, size in behind))
        gap -= sum(gone for gone, _ in behind)
        room = math.floor(self.final * sum(self.sizes)) - sum(pruned)
        if room >= gap:
            return allowed
        left = weight - (gap - room) - self.pools[place].missing
        return max(self.ladders[place].within(left), self.pools[place].gone)
