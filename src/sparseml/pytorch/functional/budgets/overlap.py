"""Budgets for units that share weights, where sizes do not add up: counting real zeros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparseml.pytorch.functional.budgets.base import Budget, Target, common_target
from sparseml.pytorch.functional.budgets.local import Counts
from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.patterns.units import Units
from sparseml.pytorch.functional.selection import prune_count

__all__ = ["choose_overlapping"]

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
    if isinstance(budget, Counts):
        if budget.of != "units":
            raise ValueError(
                "counts of weights need tensors that belong to one group each; count units"
            )
        return budget.choose(pools, 0.0)
    keep: list[Tensor] = [torch.ones(0)] * len(pools)
    for part in [list(range(len(pools)))] if budget.joint else _connected(pools):
        members = sorted({member for place in part for member in pools[place].members})
        goal = _Goal(pattern, pools, part, members, shapes, live)
        asked = target if isinstance(target, (int, float)) else [target[m] for m in members]
        chosen = _nearest(goal, budget, common_target(asked))
        for place, decided in zip(part, chosen, strict=True):
            keep[place] = decided
    return keep


def _connected(pools: Sequence[Pool]) -> list[list[int]]:
    """Positions of the pools, those that share tensors together."""
    parts: list[tuple[set[int], list[int]]] = []
    for place, pool in enumerate(pools):
        members, places = set(pool.members), [place]
        apart = []
        for part in parts:
            if part[0] & members:
                members |= part[0]
                places = part[1] + places
            else:
                apart.append(part)
        parts = [*apart, (members, places)]
    return [places for _, places in parts]


class _Goal:
    """Some pools, and how many weights of their tensors a decision about them prunes."""

    def __init__(
        self,
        pattern: Units,
        pools: Sequence[Pool],
        part: Sequence[int],
        members: Sequence[int],
        shapes: Sequence[Sequence[int]],
        live: Sequence[Tensor] | None,
    ) -> None:
        # sizes do not add up, so units are counted
        self.pools = [
            replace(pools[place], size=1, weights=pools[place].units, missing=0) for place in part
        ]
        self.largest = max((int(pools[p].sizes().max()) for p in part if pools[p].units), default=0)
        self.weights = sum(torch.Size(shapes[member]).numel() for member in members)
        self._pattern, self._members, self._live = pattern, members, live
        self._everything = [
            torch.ones_like(p.scores, dtype=torch.bool, device="cpu") for p in pools
        ]
        self._part = part
        self._shapes = shapes

    def pruned(self, keep: Sequence[Tensor]) -> int:
        """How many weights are gone with this decision."""
        decided = [*self._everything]
        for place, unit in zip(self._part, keep, strict=True):
            decided[place] = unit
        counts = self._pattern.pruned(decided, self._shapes, self._live)
        return sum(counts[member] for member in self._members)


def _nearest(goal: _Goal, budget: Budget, sparsity: float) -> list[Tensor]:
    """Find the share of the units that comes nearest, from what ``sparsity`` itself says."""
    wanted = prune_count(goal.weights, sparsity)
    under = [torch.ones_like(pool.scores, dtype=torch.bool) for pool in goal.pools]
    over = budget.choose(goal.pools, sparsity)
    low, high = 0.0, sparsity
    if goal.pruned(over) <= wanted:
        low, high, under = sparsity, 1.0, over
    for _ in range(_STEPS):
        share = (low + high) / 2
        tried = _tried(budget, goal.pools, share)
        few = share < sparsity if tried is None else goal.pruned(tried) <= wanted
        low, high = (share, high) if few else (low, share)
        if tried is not None:
            under, over = (tried, over) if few else (under, tried)
            if high < 1.0 and _differing(under, over) <= 1:
                break
    best = _between(goal, under, over, wanted)
    if goal.pruned(best) + goal.largest < wanted:
        raise ValueError(
            f"{wanted} of {goal.weights} weights cannot be pruned: only {goal.pruned(best)} belong "
            "to units that can go"
        )
    return best


def _differing(one: list[Tensor], other: list[Tensor]) -> int:
    return sum(int((a != b).sum()) for a, b in zip(one, other, strict=True))


def _tried(budget: Budget, pools: Sequence[Pool], share: float) -> list[Tensor] | None:
    """What the budget chooses, None where its limits do not allow the share."""
    try:
        return budget.choose(pools, share)
    except ValueError:
        return None


def _between(goal: _Goal, under: list[Tensor], over: list[Tensor], wanted: int) -> list[Tensor]:
    """Let single units go on the way from one decision to the next, to what comes nearest."""
    best, nearest = under, abs(goal.pruned(under) - wanted)
    reached = [keep.clone() for keep in under]
    for place, keep in enumerate(over):
        for unit in (reached[place] & ~keep).nonzero()[:, 0].tolist():
            reached[place][unit] = False
            distance = abs(goal.pruned(reached) - wanted)
            if distance < nearest:
                best, nearest = [keep.clone() for keep in reached], distance
    return best
