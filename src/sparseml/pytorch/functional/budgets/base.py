"""What every budget does, how targets are given, and how much may go from each tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import require_sparsity
from sparseml.utils.text import few

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

    :raises ValueError: when the targets differ
    """
    targets = {target} if isinstance(target, (int, float)) else set(target)
    if len(targets) > 1:
        raise ValueError(
            f"global sparsity has one target, found different ones: {few(sorted(targets))}"
        )
    return targets.pop() if targets else 0.0


def pool_target(pool: Pool, target: Target) -> float:
    """Return the target of a pool's tensors.

    :raises ValueError: when they have different ones
    """
    if isinstance(target, (int, float)):
        return target
    own = {target[member] for member in pool.members}
    if len(own) > 1:
        raise ValueError(
            f"tensors {few(pool.members)} go together and need one target, found {few(sorted(own))}"
        )
    return own.pop()


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


def after_removal(sparsity: float, removed: float) -> float:
    """The sparsity to ask of what is left when a part of a tensor was physically removed.

    Removed entries count as pruned: with half of a tensor gone, a sparsity of 0.75 means that half
    of the rest is pruned.

    :param removed: the fraction that was removed, in [0, 1)
    """
    return max((sparsity - removed) / (1.0 - removed), 0.0) if removed < 1.0 else 0.0


def all_after_removal(
    target: Target, sizes: Sequence[int], original_sizes: Sequence[int]
) -> Target:
    """As :func:`after_removal` for several tensors, one target for all or one for each.

    :param sizes: what is left of each
    :param original_sizes: what each had
    """
    if list(sizes) == list(original_sizes):
        return target
    targets = [target] * len(sizes) if isinstance(target, (int, float)) else target
    return [
        after_removal(sparsity, 1.0 - size / max(original, 1))
        for sparsity, size, original in zip(targets, sizes, original_sizes, strict=True)
    ]


def sparsity_bounds(
    sizes: Sequence[int], max_sparsity: float = 1.0, min_sparsity: float = 0.0
) -> tuple[list[int], list[int]]:
    """The fewest and the most units of each tensor that may be pruned.

    :return: floors, ``ceil(size * min_sparsity)``, and caps, ``floor(size * max_sparsity)``, so
        that no tensor is sparser than ``max_sparsity`` nor denser than ``1 - min_sparsity``
    :raises ValueError: for bounds outside [0, 1] or in the wrong order
    """
    require_sparsity(max_sparsity, "max_sparsity")
    require_sparsity(min_sparsity, "min_sparsity")
    if min_sparsity > max_sparsity:
        raise ValueError(f"min_sparsity {min_sparsity} is above max_sparsity {max_sparsity}")
    # Decimal fractions are meant as written: 0.29 of 100 is 29, not 28.999...
    low, high = Fraction(str(min_sparsity)), Fraction(str(max_sparsity))
    return [math.ceil(size * low) for size in sizes], [math.floor(size * high) for size in sizes]
