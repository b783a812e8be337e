"""Modifiers that decide about the same parameters at the same time."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.utils.text import few

_LOGGER = logging.getLogger(__name__)


def shared_time(one: Any, other: Any) -> tuple[float, float] | None:
    """Return the epochs in which two modifiers are active, None if there are none.

    :return: start and end, infinite for an open one
    """
    starts = [max(each.start_epoch, 0.0) for each in (one, other)]
    ends = [math.inf if each.end_epoch < 0 else each.end_epoch for each in (one, other)]
    start, end = max(starts), min(ends)
    return (start, end) if start < end or starts[0] == starts[1] else None


def require_own_parameters(modifiers: Iterable[Any]) -> None:
    """Check that no two modifiers decide about a parameter at the same time.

    SparseML 1.x lets masks multiply, so its modifiers are only warned of. Modifiers that keep zeros
    as they are go with any other.

    :param modifiers: those of a recipe, initialised
    :raises ValueError: naming modifiers, parameters and epochs, where one works only by itself
    """
    pruners = [one for one in modifiers if isinstance(one, BasePruningModifier)]
    for one, other in combinations(pruners, 2):
        time = shared_time(one, other) if one.steps_resolved and other.steps_resolved else None
        if time is None or one._decides_once or other._decides_once:
            continue
        theirs = {id(param) for param in other.masks.params}
        params = zip(one.masks.full_names, one.masks.params, strict=True)
        if names := [name for name, param in params if id(param) in theirs]:
            text = both_prune(one, other, names, time)
            if works_alone(one, other):
                raise ValueError(text)
            _LOGGER.warning("%s", text)


def works_alone(one: Any, other: Any) -> bool:
    """Return whether one of two modifiers needs its parameters for itself."""
    return bool(getattr(one, "_alone", False) or getattr(other, "_alone", False))


def both_prune(one: Any, other: Any, names: Sequence[str], time: tuple[float, float]) -> str:
    """Return what is wrong with two modifiers that prune these parameters at this time."""
    kinds = " and ".join(type(each).__name__ for each in (one, other))
    until = "the end" if time[1] == math.inf else f"epoch {time[1]:g}"
    return (
        f"{kinds} both prune {few(names)} from epoch {time[0]:g} to {until}, so "
        "that more goes than either asks for: leave each parameter to one of them, by params or "
        "exclude"
    )
