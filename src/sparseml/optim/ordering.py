"""
The order in which modifiers act.

Modifiers that end first act first, those without an end last; then those that start first; the
rest is decided by their identifiers, so that the order never depends on how a recipe was written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = [
    "compare_ends",
    "compare_identifiers",
    "compare_lists",
    "compare_modifiers",
    "compare_starts",
    "modifier_key",
    "stage_key",
]

Key = tuple[float, float, str]


class Identified(Protocol):
    """What is put in order: a modifier, whose epochs are looked for and may be missing."""

    def identifier(self, extra: Any = "") -> str: ...


def _end(modifier: Identified) -> float:
    end = float(getattr(modifier, "end_epoch", -1.0))
    return math.inf if end < 0 else end


def _start(modifier: Identified) -> float:
    start = getattr(modifier, "start_epoch", -1.0)
    if not getattr(modifier, "steps_resolved", True):
        step = getattr(modifier, "start_step", None)
        start = start if step is None else step
    return float(start)


def modifier_key(modifier: Identified) -> Key:
    """Sorts modifiers by end, start and identifier; an end of -1 comes last."""
    return _end(modifier), _start(modifier), modifier.identifier()


def stage_key(modifiers: Sequence[Identified]) -> Key:
    """Sorts stages by last end, first start and greatest identifier, where -1 says nothing."""
    keys = [modifier_key(modifier) for modifier in modifiers]
    ends = [end for end, _, _ in keys if math.isfinite(end)]
    starts = [start for _, start, _ in keys if start >= 0]
    identifiers = [identifier for _, _, identifier in keys]
    return max(ends, default=math.inf), min(starts, default=-1.0), max(identifiers, default="")


def _compare(one: Any, two: Any) -> int:
    return (one > two) - (one < two)


def compare_modifiers(one: Identified, two: Identified) -> int:
    """-1, 0 or 1 as ``one`` sorts before, with or after ``two``."""
    return _compare(modifier_key(one), modifier_key(two))


def compare_lists(one: Sequence[Identified], two: Sequence[Identified]) -> int:
    """-1, 0 or 1 as the stage ``one`` sorts before, with or after the stage ``two``."""
    return _compare(stage_key(one), stage_key(two))


def compare_ends(one: Identified, two: Identified) -> int:
    """Compare by end epoch only; -1 comes last."""
    return _compare(_end(one), _end(two))


def compare_starts(one: Identified, two: Identified) -> int:
    """Compare by start epoch only."""
    return _compare(_start(one), _start(two))


def compare_identifiers(one: Identified, two: Identified) -> int:
    """Compare by identifier only."""
    return _compare(one.identifier(), two.identifier())
