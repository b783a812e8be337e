"""Budgets that look at each tensor by itself."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor

from sparseml.pytorch.functional.budgets.base import (
    Budget,
    Pools,
    Target,
    pool_target,
    share_of_units,
    whole,
)
from sparseml.pytorch.functional.budgets.ranking import ladder_of, lowest_weights
from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import lowest_mask, prune_count

__all__ = ["Counts", "Uniform"]


@dataclass(frozen=True)
class Uniform(Budget):
    """The target's sparsity in every tensor: one for all, or one for each.

    :param down: round down to whole units, instead of to the nearest, as Intel's pruner does
    """

    down: bool = False

    def check(self, pools: Pools, target: Target) -> None:
        if not self.down:
            for pool in pools:
                if pool.units and not pool.even:
                    require_removable(pool, self._weights(pool, pool_target(pool, target)))

    def choose(self, pools: Pools, target: Target, spread_ties: bool = False) -> list[Tensor]:
        keep = []
        for pool in pools:
            spread = spread_ties and pool.full == 1.0
            sparsity = target if isinstance(target, float) else pool_target(pool, target)
            if self.down:
                count = max(ladder_of(pool).within(self._weights(pool, sparsity)), pool.gone)
            elif pool.even:
                # where units lose all of their weights, the share of units is that of weights
                share = sparsity if pool.full == 1.0 else share_of_units(pool, sparsity)
                count = round(pool.units * share)
            else:
                total = self._weights(pool, sparsity)
                if pool.units:
                    require_removable(pool, total)
                keep.append(lowest_weights([pool], total, spread_ties=spread)[0])
                continue
            keep.append(lowest_mask(pool.scores, count, spread_ties=spread))
        return keep

    def _weights(self, pool: Pool, sparsity: float) -> int:
        """Return how many weights go beside those that are missing."""
        if self.down:
            return whole(pool.weights * Fraction(str(sparsity))) - pool.missing
        return prune_count(pool.weights, sparsity) - pool.missing


@dataclass(frozen=True)
class Counts(Budget):
    """How much goes from each tensor, said outright; the target is not asked.

    Tensors that go together lose as many units as the least of them says, or as many weights as all
    say.

    :param counts: one for each tensor
    :param of: what they count, ``weights`` or ``units``
    :raises ValueError: for another ``of``, or a negative count
    """

    counts: tuple[int, ...]
    of: str = "weights"

    def __post_init__(self) -> None:
        if self.of not in ("weights", "units"):
            raise ValueError(f"counts are of weights or of units, found {self.of!r}")
        if any(count < 0 for count in self.counts):
            raise ValueError(f"counts are at least 0, found {min(self.counts)}")

    def check(self, pools: Pools, target: Target = 0.0) -> None:
        """Check that there is a count for each tensor, and that there is so much to prune."""
        tensors = 1 + max((member for pool in pools for member in pool.members), default=-1)
        if tensors > len(self.counts):
            raise ValueError(f"{tensors} tensors, but {len(self.counts)} counts")
        for pool in pools if self.of == "weights" else ():
            require_removable(pool, self._asked(pool))

    def choose(self, pools: Pools, target: Target = 0.0, spread_ties: bool = False) -> list[Tensor]:
        self.check(pools)
        return [self._keep(pool, spread_ties and pool.full == 1.0) for pool in pools]

    def _keep(self, pool: Pool, spread_ties: bool) -> Tensor:
        asked = self._asked(pool)
        if self.of == "units" or pool.size == 1:
            count = max(asked, pool.gone) if pool.units else 0
            return lowest_mask(pool.scores, count, spread_ties=spread_ties)
        return lowest_weights([pool], asked, spread_ties=spread_ties)[0]

    def _asked(self, pool: Pool) -> int:
        """How many units or weights go beside those that are missing."""
        asked = [self.counts[member] for member in pool.members]
        return min(asked) if self.of == "units" else sum(asked) - pool.missing


def require_removable(pool: Pool, total: int) -> None:
    """Check that all units together come near ``total`` weights.

    :raises ValueError: saying how many weights are in units
    """
    largest = pool.size if isinstance(pool.size, int) else int(pool.size.max())
    if total > pool.removable + largest // 2:
        raise ValueError(
            f"{total + pool.missing} of {pool.weights} weights cannot be pruned: only "
            f"{pool.removable + pool.missing} belong to units that can go"
        )
