"""Budgets that look at each tensor by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from sparseml.pytorch.functional.budgets.base import Target, pool_target, unit_count
from sparseml.pytorch.functional.budgets.ranking import lowest_weights
from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import lowest_mask, prune_count

__all__ = ["Counts", "Uniform"]


@dataclass(frozen=True)
class Uniform:
    """The target's sparsity in every tensor: one for all, or one for each.

    :param down: round down to whole units, instead of to the nearest, as Intel's pruner does
    """

    down: bool = False

    @property
    def joint(self) -> bool:
        """No."""
        return False

    def choose(
        self, pools: Sequence[Pool], target: Target, spread_ties: bool = False
    ) -> list[Tensor]:
        """Prune the lowest units of each pool.

        :raises ValueError: for NaN scores, tensors that go together with different targets, or a
            sparsity that whole units cannot reach
        """
        return [self._keep(pool, pool_target(pool, target), spread_ties) for pool in pools]

    def _keep(self, pool: Pool, sparsity: float, spread_ties: bool) -> Tensor:
        if not pool.units:
            return torch.ones_like(pool.scores, dtype=torch.bool)
        spread_ties = spread_ties and pool.full == 1.0
        if pool.even and not self.down:
            return lowest_mask(pool.scores, unit_count(pool, sparsity), spread_ties=spread_ties)
        if self.down:
            total = math.floor(pool.weights * Fraction(str(sparsity))) - pool.missing
            if isinstance(pool.size, int):
                count = min(max(total // max(pool.size, 1), 0), pool.units)
                return lowest_mask(pool.scores, count, spread_ties=spread_ties)
        else:
            total = prune_count(pool.weights, sparsity) - pool.missing
        require_removable(pool, total)
        return lowest_weights([pool], total, spread_ties=spread_ties)[0]


@dataclass(frozen=True)
class Counts:
    """How much goes from each tensor, said outright; the target is not asked.

    Of tensors that go together as much goes as the least of them says.

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

    @property
    def joint(self) -> bool:
        """No."""
        return False

    def choose(
        self, pools: Sequence[Pool], target: Target = 0.0, spread_ties: bool = False
    ) -> list[Tensor]:
        """Prune the lowest units of each pool.

        :raises ValueError: for NaN scores, counts that do not fit the tensors, or more weights than
            whole units can reach
        """
        if any(member >= len(self.counts) for pool in pools for member in pool.members):
            raise ValueError(
                f"{1 + max(m for pool in pools for m in pool.members)} tensors, but "
                f"{len(self.counts)} counts"
            )
        return [self._keep(pool, spread_ties and pool.full == 1.0) for pool in pools]

    def _keep(self, pool: Pool, spread_ties: bool) -> Tensor:
        asked = [self.counts[member] for member in pool.members]
        if not pool.units:
            return torch.ones_like(pool.scores, dtype=torch.bool)
        if self.of == "units":
            return lowest_mask(pool.scores, min(asked), spread_ties=spread_ties)
        total = sum(asked) - pool.missing
        require_removable(pool, total)
        if pool.size == 1:
            return lowest_mask(pool.scores, max(total, 0), spread_ties=spread_ties)
        return lowest_weights([pool], total, spread_ties=spread_ties)[0]


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
