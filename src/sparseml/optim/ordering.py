"""The order in which modifiers act.

Modifiers that end first act first, those without an end last; then those that start first; the
rest is decided by their identifiers, so that the order never depends on how a recipe was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

Key = tuple[float, float, str]


class Identified(Protocol):
    """What is put in order: a modifier, whose epochs are looked for and may be missing."""

    def identifier(self, extra: Any = "") -> str: ...


def end_key(modifier: Identified) -> float:
    """Return what sorts by the end; -1, which is none, comes last."""
    end = float(getattr(modifier, "end_epoch", -1.0))
    return math.inf if end < 0 else end


def start_key(modifier: Identified) -> float:
    """Return what sorts by the start."""
    start = getattr(modifier, "start_epoch", -1.0)
    if not getattr(modifier, "steps_resolved", True):
        step = getattr(modifier, "start_step", None)
        start = start if step is None else step
    return float(start)


def modifier_key(modifier: Identified) -> Key:
    """Return what sorts by end, start and identifier; an end of -1 comes last."""
    return end_key(modifier), start_key(modifier), modifier.identifier()


def stage_key(modifiers: Sequence[Identified]) -> Key:
    """Return what sorts stages by last end, first start and greatest identifier; -1 is none."""
    keys = [modifier_key(modifier) for modifier in modifiers]
    ends = [end for end, _, _ in keys if math.isfinite(end)]
    starts = [start for _, start, _ in keys if start >= 0]
    identifiers = [identifier for _, _, identifier in keys]
    return max(ends, default=math.inf), min(starts, default=-1.0), max(identifiers, default="")


def comparing(key: Callable[[Any], Any]) -> Callable[[Any, Any], int]:
    """Return a function that is -1, 0 or 1 as one thing sorts before, with or after another."""

    def compare(one: Any, two: Any) -> int:
        first, second = key(one), key(two)
        return (first > second) - (first < second)

    return compare
