"""One ranking of all tensors together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from sparseml.pytorch.functional.budgets.base import (
    Budget,
    Pools,
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
from sparseml.pytorch.functional.budgets.ranking import Ladder, ladder_of, lowest_weights
from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import joined, lowest_mask, prune_count, split_like

__all__ = ["Global"]


@dataclass(frozen=True)
class Global(Budget):
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

    joint = True

    def __post_init__(self) -> None:
        sparsity_bounds([], self.max_sparsity, self.min_sparsity)

    def check(self, pools: Pools, target: Target) -> None:
        self._plan(pools, common_target(target))

    def choose(self, pools: Pools, target: Target, spread_ties: bool = False) -> list[Tensor]:
        if not pools:
            return []
        total, first, last = self._plan(pools, common_target(target))
        scores = [pool.scores for pool in pools]
        spread_ties = spread_ties and not self._limited and all(p.full == 1.0 for p in pools)
        if not one_size(pools):
            return lowest_weights(pools, total, first=first, last=last, spread_ties=spread_ties)
        if not self._limited:
            keep = lowest_mask(joined(scores), total, spread_ties=spread_ties)
            return split_like(keep, scores)
        counts = global_counts(scores, total, first, last)
        return [lowest_mask(each, count) for each, count in zip(scores, counts, strict=True)]

    @property
    def _limited(self) -> bool:
        return (self.max_sparsity, self.min_sparsity) != (1.0, 0.0)

    def _plan(self, pools: Pools, sparsity: float) -> tuple[int, list[int], list[int]]:
        """How much goes, and the fewest and the most units of each pool.

        :return: a number of units where all have one size, else of weights
        """
        if self._limited:
            bounds = [self._bounds(pool, sparsity) for pool in pools]
        else:
            bounds = [(pool.gone, pool.units, (0, pool.removable)) for pool in pools]
        first, last = [least for least, _, _ in bounds], [most for _, most, _ in bounds]
        if one_size(pools):
            share = share_of_units(pools[0], sparsity) if pools else 0.0
            units = [pool.units for pool in pools]
            total = prune_count(sum(units), share)
            if any(pool.gone for pool in pools):
                total = max(total, sum(first))
            if self._limited:
                require_possible(total, units, first, last)
            return total, first, last
        total = prune_count(sum(pool.weights for pool in pools), sparsity)
        total -= sum(pool.missing for pool in pools)
        low, high = (sum(weights[end] for _, _, weights in bounds) for end in (0, 1))
        largest = max((int(pool.sizes().max()) for pool in pools if pool.units), default=0)
        spare = any(pool.gone or pool.missing for pool in pools)
        if total > high + largest // 2 or (total < low - largest // 2 and not spare):
            raise ValueError(
                f"{total} of {sum(pool.weights for pool in pools)} weights cannot be pruned: the "
                f"units that can go, and the limits per tensor, allow {low} to {high}"
            )
        return total, first, last

    def _bounds(self, pool: Pool, sparsity: float) -> tuple[int, int, tuple[int, int]]:
        """The fewest and the most units of a pool, and how many weights these have."""
        low, high = Fraction(str(self.min_sparsity)), Fraction(str(self.max_sparsity))
        ladder = Ladder(pool.scores, pool.size) if isinstance(pool.size, int) else ladder_of(pool)
        most = ladder.within(math.floor(pool.weights * high) - pool.missing)
        wanted = math.ceil(pool.weights * low) - pool.missing
        least = min(ladder.within(wanted - 1) + 1, pool.units) if wanted > 0 else 0
        if self.final is not None and sparsity < self.final:
            least = int(least * sparsity / self.final)
        most = max(most, pool.gone)
        least = min(max(least, pool.gone), most)
        return least, most, (ladder.weight(least), ladder.weight(most))
