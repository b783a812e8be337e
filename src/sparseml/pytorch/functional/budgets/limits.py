"""What is gone already, and how much may go from each tensor at least and at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from torch import Tensor

from sparseml.pytorch.functional.budgets.base import Target
from sparseml.pytorch.functional.budgets.ranking import Ladder, shares, sorted_values
from sparseml.pytorch.functional.selection import require_numbers, require_sparsity

__all__ = [
    "after_removal",
    "all_after_removal",
    "global_counts",
    "require_possible",
    "sparsity_bounds",
]


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
    :param total: how many units to prune in all
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
