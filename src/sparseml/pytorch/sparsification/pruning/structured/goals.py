"""A goal in place of a sparsity: how many units of each group go so that a model gets so fast."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from sparseml.optim.errors import RecipeValueError
from sparseml.pytorch.sparsification.fields import between
from sparseml.pytorch.sparsification.pruning.settings.fields import as_final_sparsity
from sparseml.pytorch.sparsification.pruning.structured.costs import (
    MEASURES,
    Costs,
    Counted,
    Seconds,
)
from sparseml.pytorch.units.removable import Removable
from sparseml.utils.text import did_you_mean, few, quoted_list, shown

_LOGGER = logging.getLogger(__name__)

GOALS = ("speedup", *MEASURES)
"""What may be asked for."""

_MOST_LEVELS = 16
_FEWEST_NEIGHBOURS = 8


@dataclass(frozen=True)
class Goal:
    """What a model shall be like when units have gone.

    :param kind: a key of :data:`GOALS`
    :param asked: how many times as fast; or the share of the parameters or operations to keep
    """

    kind: str
    asked: float

    @property
    def share(self) -> float:
        """What of the cost may be left."""
        return 1.0 / self.asked if self.kind == "speedup" else self.asked

    def reached(self, share: float) -> float:
        """Return what corresponds to :attr:`asked` when this share of the cost is left."""
        return 1.0 / share if self.kind == "speedup" else share

    def text(self, share: float | None = None) -> str:
        """Return the goal in words, or what was reached."""
        value = self.asked if share is None else self.reached(share)
        if self.kind == "speedup":
            return f"{value:.2f} times as fast"
        return f"{value:.1%} of the {'parameters' if self.kind == 'params' else 'operations'}"


def as_goal(value: Any) -> Goal | None:
    """Return what a final sparsity says that is a goal; None for any other."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((kind, asked),) = value.items()
        if kind in GOALS:
            return Goal(kind, float(asked))
    return None


def names_goals(value: Any) -> bool:
    """Whether a final sparsity is meant as a mapping of goals, right or wrong."""
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and not _is_number(key) for key in value
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_final_or_goal(name: str, value: Any) -> Any:
    """Return ``value``, a final sparsity or a mapping with one goal, as it was given.

    :raises ValueError: for several goals, an unknown one, and a value out of its range
    :raises TypeError: for a sparsity that is not written as a float
    """
    if not names_goals(value):
        return as_final_sparsity(name, value)
    allowed = list(GOALS)
    for key in map(str, value):
        if key not in allowed:
            hint = did_you_mean(key, allowed)
            raise ValueError(f"a goal of {name} is {quoted_list(allowed)}, found {key!r}{hint}")
    if len(value) > 1:
        raise ValueError(f"{name} takes one goal, found {len(value)}: {shown(dict(value))}")
    ((kind, asked),) = value.items()
    if kind == "speedup":
        between(above=1.0)(f"{kind} of {name}", asked)
    elif not 0.0 < between()(f"{kind} of {name}", asked) < 1.0:
        raise ValueError(
            f"{kind} of {name} is the share to keep, strictly between 0 and 1, found {asked!r}"
        )
    return dict(value)


def plan_for(
    goal: Goal, units: Sequence[Removable], inputs: Callable[[], Any], seconds: float
) -> Callable[[Module, list[Tensor]], list[float]]:
    """Return what decides, from the losses of removing units, which shares of each group go.

    Groups lose units in steps, the step first that loses least for what it saves (the greedy walk
    along the convex hulls of loss over cost, after ZipLM: Kurtic et al., 2023). How much a step
    saves is told by a table: of times measured for models in which one kind of group is smaller,
    or of counts. On this way the first model is sought that meets the goal, by measuring or
    counting it as a whole.

    :param inputs: returns a batch to measure on
    :param seconds: for all measurements together, about
    """

    def plan(module: Module, losses: list[Tensor]) -> list[float]:
        batch = inputs()
        costs: Costs
        if goal.kind == "speedup":
            costs = Seconds(module, units, batch, seconds)
        else:
            costs = Counted(MEASURES[goal.kind], module, units, batch)
        levels = [_levels(one.group.size, one.kind) for one in units]
        table = costs.table(levels)
        steps = _walk(levels, table, losses)
        shares = _nearest(goal, costs, units, steps, levels)
        kept = [
            f"{one.group.size - round(share * one.group.size)} of {one.group.size} {one.kind} of "
            f"{one.name}"
            for one, share in zip(units, shares, strict=True)
        ]
        _LOGGER.info("%s keeps %s; %s", goal.text(), few(kept, 12), costs.told())
        return shares

    return plan


def _levels(size: int, kind: str) -> list[int]:
    """The numbers of units that a group may keep, from all down to few."""
    if kind == "heads":
        return list(range(size, 0, -1))
    # kernels work on some neighbours at a time
    every = max(-(-size // _MOST_LEVELS), min(_FEWEST_NEIGHBOURS, size // 4), 1)
    return [size, *range((size - 1) // every * every, 0, -every)]


def _walk(
    levels: Sequence[Sequence[int]], table: Sequence[Sequence[float]], losses: Sequence[Tensor]
) -> list[list[int]]:
    """Return how many units each group keeps after each step, the first having all.

    :param table: the cost of the model with each level of each group
    """
    moves = []
    for group, (kept, costs, loss) in enumerate(zip(levels, table, losses, strict=True)):
        ordered = torch.cat([torch.zeros(1, dtype=torch.float64), loss.double().cpu().sort()[0]])
        size = kept[0]
        points = [
            (costs[0] - cost, float(ordered[size - left]), left)
            for left, cost in zip(kept, costs, strict=True)
        ]
        for before, after in _hull(points):
            slope = (after[1] - before[1]) / (after[0] - before[0])
            moves.append((slope, group, -after[2]))
    present = [kept[0] for kept in levels]
    steps = [list(present)]
    for _, group, left in sorted(moves):
        present[group] = min(present[group], -left)
        steps.append(list(present))
    least = [kept[-1] for kept in levels]
    return steps if steps[-1] == least else [*steps, least]


_Point = tuple[float, float, int]


def _hull(points: Sequence[_Point]) -> list[tuple[_Point, _Point]]:
    """The edges of the lower convex hull of loss over saving, in order of rising saving."""
    hull: list[_Point] = []
    for point in points:
        if hull and point[0] <= hull[-1][0]:
            continue  # it saves no more than a wider one
        while len(hull) > 1 and _slope(hull[-1], point) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return list(itertools.pairwise(hull))


def _slope(one: _Point, other: _Point) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])


def _nearest(
    goal: Goal,
    costs: Costs,
    units: Sequence[Removable],
    steps: list[list[int]],
    levels: Sequence[Sequence[int]],
) -> list[float]:
    """Return the shares to remove at the first step that meets the goal, or within this step.

    :raises RecipeValueError: if none does, naming what the last one reaches
    """
    sizes = [one.group.size for one in units]
    least = costs.share(steps[-1])
    if least > goal.share:
        raise RecipeValueError(
            f"final_sparsity asks for {goal.text()}, which cannot be reached by removing "
            f"{_kinds(units)}: with the fewest that may stay the model is {goal.text(least)}",
            key="final_sparsity",
        )
    met = _first(steps, costs, goal.share)
    before, after = steps[met - 1], steps[met]
    # a step may be long, and what lies on its way meets the goal too
    within = [before]
    for place, (most, fewest) in enumerate(zip(before, after, strict=True)):
        between = [level for level in levels[place] if fewest <= level < most]
        within += [[*within[-1][:place], level, *within[-1][place + 1 :]] for level in between]
    # what was measured in a hurry is measured once more, and may turn out to fall short
    ways = [*within[_first(within, costs, goal.share) :], *steps[met:]]
    chosen = next((kept for kept in ways if costs.again(kept) <= goal.share), steps[-1])
    return [1.0 - left / size for left, size in zip(chosen, sizes, strict=True)]


def _first(steps: Sequence[list[int]], costs: Costs, share: float) -> int:
    """Return which step is the first to cost no more, of which the last does and the first not."""
    low, high = 0, len(steps) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if costs.share(steps[middle]) <= share:
            high = middle
        else:
            low = middle
    return high


def _kinds(units: Sequence[Removable]) -> str:
    return " and ".join(dict.fromkeys(one.kind for one in units))
