"""Budgets for units that share weights, where sizes do not add up: counting real zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparseml.pytorch.functional.budgets.base import Budget, Target, common_target
from sparseml.pytorch.functional.budgets.rules import Counts, UnitShares
from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.patterns.units import Units
from sparseml.pytorch.functional.selection import prune_count

_STEPS = 50


def choose_overlapping(
    pattern: Units,
    pools: Sequence[Pool],
    budget: Budget,
    target: Target,
    shapes: Sequence[Sequence[int]],
    live: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Ask the budget for such a share of the units that the target's share of weights goes.

    Limits of the budget hold for the units of each group.

    :param pools: of ``pattern``
    :param shapes: of all tensors, and ``live`` what is there of them
    :return: per pool a bool of the shape of its scores, True = keep
    :raises ValueError: for what the budget cannot do, targets that differ among tensors that share
        groups, and a target that whole units cannot reach
    """
    if isinstance(budget, UnitShares):
        return budget.choose(pools, target)
    if isinstance(budget, Counts):
        if budget.of != "units":
            raise ValueError(
                "counts of weights need tensors that belong to one group each; count units"
            )
        return budget.choose(pools, 0.0)
    keep: dict[int, Tensor] = {}
    for part in [list(range(len(pools)))] if budget.joint else _connected(pools):
        own = Units(tuple(pattern.groups[place] for place in part), pattern.reduce)
        chosen = _nearest(own, [pools[place] for place in part], budget, target, shapes, live)
        keep.update(zip(part, chosen, strict=True))
    return [keep[place] for place in range(len(pools))]


def _connected(pools: Sequence[Pool]) -> list[list[int]]:
    """Positions of the pools, those that share tensors together."""
    parts: list[tuple[set[int], list[int]]] = []
    for place, pool in enumerate(pools):
        sharing = [part for part in parts if part[0] & set(pool.members)]
        parts = [part for part in parts if part not in sharing]
        members = set(pool.members).union(*(part[0] for part in sharing))
        parts.append((members, [*(p for part in reversed(sharing) for p in part[1]), place]))
    return [places for _, places in parts]


def _nearest(
    pattern: Units,
    pools: Sequence[Pool],
    budget: Budget,
    target: Target,
    shapes: Sequence[Sequence[int]],
    live: Sequence[Tensor] | None,
) -> list[Tensor]:
    """Find the share of the units that comes nearest, from what the target itself says."""
    members = sorted({member for pool in pools for member in pool.members})
    asked = target if isinstance(target, (int, float)) else [target[m] for m in members]
    sparsity = common_target(asked)
    weights = sum(torch.Size(shapes[member]).numel() for member in members)
    wanted = prune_count(weights, sparsity)
    largest = max((int(pool.sizes().max()) for pool in pools if pool.units), default=0)
    # sizes do not add up, so units are counted
    pools = [replace(pool, size=1, weights=pool.units, missing=0) for pool in pools]

    def pruned(decided: Sequence[Tensor]) -> int:
        counts = pattern.pruned(decided, shapes, live)
        return sum(counts[member] for member in members)

    under = [torch.ones_like(pool.scores, dtype=torch.bool) for pool in pools]
    over = budget.choose(pools, sparsity)
    low, high = 0.0, sparsity
    if pruned(over) <= wanted:
        low, high, under = sparsity, 1.0, over
    for _ in range(_STEPS):
        share = (low + high) / 2
        try:
            tried = budget.choose(pools, share)
        except ValueError:  # the budget's limits do not allow it
            low, high = (share, high) if share < sparsity else (low, share)
            continue
        if pruned(tried) <= wanted:
            low, under = share, tried
        else:
            high, over = share, tried
        differing = sum(int((a != b).sum()) for a, b in zip(under, over, strict=True))
        if high < 1.0 and differing <= 1:
            break
    # single units go on the way from one decision to the next, to what comes nearest
    best, nearest = under, abs(pruned(under) - wanted)
    reached = [keep.clone() for keep in under]
    for place, keep in enumerate(over):
        for unit in (reached[place] & ~keep).nonzero()[:, 0].tolist():
            reached[place][unit] = False
            distance = abs(pruned(reached) - wanted)
            if distance < nearest:
                best, nearest = [keep.clone() for keep in reached], distance
    if pruned(best) + largest < wanted:
        raise ValueError(
            f"{wanted} of {weights} weights cannot be pruned: only {pruned(best)} belong to units "
            "that can go"
        )
    return best
