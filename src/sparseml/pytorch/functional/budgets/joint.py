"""One ranking of all tensors together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from sparseml.pytorch.functional.budgets.base import (
    Target,
    common_target,
    one_size,
    share_of_units,
)
from sparseml.pytorch.functional.budgets.limits import (
    global_counts,
    require_possible,
    sparsity_bounds,
)
from sparseml.pytorch.functional.budgets.ranking import ladder_of, lowest_weights
from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import joined, lowest_mask, prune_count, split_like

__all__ = ["Global"]


@dataclass(frozen=True)
class Global:
    """The lowest units of all tensors together, within limits for each.

    Limits are met to whole units, and within them the choice is the one of lowest scores.

    :param max_sparsity: no tensor gets sparser than this
    :param min_sparsity: no tensor stays denser than ``1 - min_sparsity``
    :param final: the sparsity that the target grows to; on the way there the lower limit is in
        proportion. None: the target itself
    :raises ValueError: for limits outside [0, 1] or in the wrong order
    """

    max_sparsity: float = 1.0
    min_sparsity: float = 0.0
    final: float | None = None

    def __post_init__(self) -> None:
        sparsity_bounds([], self.max_sparsity, self.min_sparsity)

    @property
    def joint(self) -> bool:
        """Yes."""
        return True

    def choose(
        self, pools: Sequence[Pool], target: Target, spread_ties: bool = False
    ) -> list[Tensor]:
        """Prune the lowest units.

        :param spread_ties: not within limits, which break ties by position
        :raises ValueError: for NaN scores, targets that differ, or one that the limits or whole
            units do not allow
        """
        sparsity = common_target(target)
        if not pools:
            return []
        limited = (self.max_sparsity, self.min_sparsity) != (1.0, 0.0)
        spread_ties = spread_ties and not limited and all(pool.full == 1.0 for pool in pools)
        if not one_size(pools):
            return self._uneven(pools, sparsity, limited, spread_ties)
        units = sum(pool.units for pool in pools)
        widest = max(pools, key=lambda pool: pool.weights)
        total = prune_count(units, share_of_units(widest, sparsity))
        scores = [pool.scores for pool in pools]
        if not limited:
            if len(scores) == 1:
                return [lowest_mask(scores[0], total, spread_ties=spread_ties)]
            keep = lowest_mask(joined(scores), total, spread_ties=spread_ties)
            return split_like(keep, scores)
        floors, caps = self._bounds(pools, sparsity)
        counts = global_counts(scores, max(total, sum(floors) if _gone(pools) else 0), floors, caps)
        return [lowest_mask(each, count) for each, count in zip(scores, counts, strict=True)]

    def check(self, pools: Sequence[Pool], sparsity: float) -> None:
        """Check that the limits leave room for a sparsity, whatever the scores.

        :raises ValueError: saying how many units can go
        """
        if not one_size(pools):
            return self._require_possible(pools, sparsity, 1.0)
        units = [pool.units for pool in pools]
        widest = max(pools, key=lambda pool: pool.weights)
        total = prune_count(sum(units), share_of_units(widest, sparsity))
        require_possible(total, units, *self._bounds(pools, sparsity))

    def _bounds(self, pools: Sequence[Pool], sparsity: float) -> tuple[list[int], list[int]]:
        """The fewest and the most units of each pool, all of one size."""
        low, high = Fraction(str(self.min_sparsity)), Fraction(str(self.max_sparsity))
        floors, caps = [], []
        for pool in pools:
            size = pool.size if isinstance(pool.size, int) else 1
            share = Fraction(pool.weights, max(size, 1))  # units, if all weights were in some
            least = min(math.ceil(share * low), pool.units)
            if self.final is not None and sparsity < self.final:
                least = int(least * sparsity / self.final)
            most = min(math.floor(share * high), pool.units)
            floors.append(max(least, pool.gone))
            caps.append(max(most, pool.gone))
        return floors, caps

    def _uneven(
        self, pools: Sequence[Pool], sparsity: float, limited: bool, spread_ties: bool
    ) -> list[Tensor]:
        weights = sum(pool.weights for pool in pools)
        total = prune_count(weights, sparsity)
        grown = 1.0
        if self.final is not None and sparsity < self.final:
            grown = sparsity / self.final
        self._require_possible(pools, sparsity, grown)
        missing = sum(pool.missing for pool in pools)
        if not limited:
            return lowest_weights(pools, total - missing, spread_ties=spread_ties)
        first, last = [], []
        for pool in pools:
            (least,), (most,) = sparsity_bounds(
                [pool.weights], self.max_sparsity, self.min_sparsity
            )
            ladder = ladder_of(pool)
            most_units = ladder.within(most - pool.missing)
            least_weight = int(least * grown) - pool.missing
            least_units = ladder.within(least_weight)
            if ladder.weight(least_units) < least_weight:
                least_units += 1
            first.append(min(least_units, most_units))
            last.append(most_units)
        return lowest_weights(pools, total - missing, first=first, last=last)

    def _require_possible(self, pools: Sequence[Pool], sparsity: float, grown: float) -> None:
        if not self.min_sparsity * grown <= sparsity <= self.max_sparsity:
            raise ValueError(
                f"a sparsity of {sparsity:g} cannot be reached: the limits per tensor allow "
                f"{self.min_sparsity * grown:g} to {self.max_sparsity:g}"
            )
        weights = sum(pool.weights for pool in pools)
        reach = sum(
            min(pool.removable + pool.missing, math.ceil(pool.weights * self.max_sparsity))
            for pool in pools
        )
        largest = max(int(pool.sizes().max()) for pool in pools if pool.units) if reach else 0
        if prune_count(weights, sparsity) > reach + largest // 2 + len(pools):
            raise ValueError(
                f"{prune_count(weights, sparsity)} of {weights} weights cannot be pruned: only "
                f"{reach} belong to units that can go within the limits per tensor"
            )


def _gone(pools: Sequence[Pool]) -> bool:
    return any(pool.gone for pool in pools)
