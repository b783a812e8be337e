"""What every budget does, and how targets are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import require_sparsity

__all__ = [
    "FULL_TOLERANCE",
    "Budget",
    "Pools",
    "Target",
    "common_target",
    "one_size",
    "pool_target",
    "share_of_units",
    "whole",
]

Pools = Sequence[Pool]

Target = float | Sequence[float]
"""A sparsity for all tensors, or one for each."""

FULL_TOLERANCE = 1e-2
"""How far a sparsity may be from that of a full N:M pattern and still mean it."""


class Budget:
    """A rule that decides how much goes from where; a value that can be compared."""

    joint = False
    """Whether the target speaks of all tensors together, instead of each."""

    def check(self, pools: Pools, target: Target) -> None:
        """Check, without looking at scores, that :meth:`choose` can meet the target.

        :raises ValueError: if it cannot
        """

    def choose(self, pools: Pools, target: Target, spread_ties: bool = False) -> list[Tensor]:
        """Decide which units stay.

        :param target: a sparsity in [0, 1], or one for each tensor
        :param spread_ties: where the lowest scores of all are equal and only some of them go, draw
            these instead of taking the last; not within limits, which break ties by position
        :return: per pool a bool of the shape of its scores, True = keep
        :raises ValueError: for NaN scores, and a target that cannot be met
        """
        raise NotImplementedError


def common_target(target: Target) -> float:
    """Return the one target that a ranking of all tensors together has.

    :raises ValueError: when the targets differ, or for one outside [0, 1]
    """
    targets = {target} if isinstance(target, (int, float)) else set(target)
    if len(targets) > 1:
        raise ValueError(f"global sparsity has one target, found different ones: {sorted(targets)}")
    sparsity = targets.pop() if targets else 0.0
    require_sparsity(sparsity)
    return sparsity


def pool_target(pool: Pool, target: Target) -> float:
    """Return the target of a pool's tensors.

    :raises ValueError: when they have different ones, or for one outside [0, 1]
    """
    if isinstance(target, (int, float)):
        sparsity = target
    else:
        own = {target[member] for member in pool.members}
        if len(own) > 1:
            raise ValueError(
                f"tensors {list(pool.members)} go together and need one target, found {sorted(own)}"
            )
        sparsity = own.pop()
    require_sparsity(sparsity)
    return sparsity


def share_of_units(pool: Pool, sparsity: float) -> float:
    """Return the fraction of an even pool's units that go at ``sparsity``.

    Near the full pattern's sparsity, where that is below 1, the pattern is full.
    """
    if pool.full < 1.0 and abs(sparsity - pool.full) <= FULL_TOLERANCE:
        return 1.0
    return min(sparsity / pool.full, 1.0)


def whole(number: Fraction) -> int:
    """Return the whole number below, or the one above where only rounding errors are missing."""
    return math.floor(number + Fraction(1, 1_000_000))


def one_size(pools: Pools) -> bool:
    """Whether a share of all units together is the same share of the weights."""
    return all(pool.even for pool in pools) and len({(p.size, p.full) for p in pools}) <= 1
