"""How far a run has come, as a part of a manager's state.

Beside what every modifier keeps in its own state (masks), a run that is to go on bit by bit as if
it had never stopped needs the step count and what each modifier has started, ended and remembered.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sparseml.utils.text import few

_LOGGER = logging.getLogger(__name__)
_IDENTIFIER = re.compile(r"(\w+)-[0-9a-f]{32}")

PROGRESS_KEY = "__progress__"
"""The key of a manager's state that is no identifier of a modifier and no stage."""

Modifiers = list[Any] | Mapping[str, list[Any]]


def collect(modifiers: Modifiers, of: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``of`` each modifier by its identifier; if staged, by stage and identifier."""
    if isinstance(modifiers, Mapping):
        return {stage: collect(members, of) for stage, members in modifiers.items()}
    return {modifier.identifier(): of(modifier) for modifier in modifiers}


def with_known_keys(modifiers: Modifiers, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with unknown identifiers replaced, where only one modifier can be meant.

    An identifier depends on how each field is written, so that a recipe which says the same in
    other words has others. Where exactly one modifier of a class lacks a state, and the state has
    exactly one unknown identifier of that class, they belong together; a warning says so.
    """
    if isinstance(modifiers, Mapping):
        known = {
            stage: with_known_keys(members, state[stage])
            for stage, members in modifiers.items()
            if isinstance(state.get(stage), Mapping)
        }
        return {**state, **known}
    identifiers = {modifier.identifier() for modifier in modifiers}
    lacking = _by_class(identifiers - state.keys())
    unknown = _by_class(state.keys() - identifiers)
    renamed = {unknown[name]: lacking[name] for name in unknown if name in lacking}
    for old, new in renamed.items():
        _LOGGER.warning(
            "the state of %s is taken for that of %s, the only modifier of its class without one",
            old, new,
        )  # fmt: skip
    return {renamed.get(key, key): part for key, part in state.items()}


def _by_class(identifiers: set[str]) -> dict[str, str]:
    """Return those identifiers whose class no other of them has, by the name of the class."""
    classes = {key: match[1] for key in identifiers if (match := _IDENTIFIER.fullmatch(key))}
    counts = Counter(classes.values())
    return {name: key for key, name in classes.items() if counts[name] == 1}


def restore(
    modifiers: Modifiers,
    state: Mapping[str, Any],
    into: Callable[[Any, Mapping[str, Any]], None],
) -> None:
    """Hand each modifier its part of a state made by :func:`collect`, if there is one."""
    if isinstance(modifiers, Mapping):
        for stage, members in modifiers.items():
            restore(members, state.get(stage, {}), into)
        return
    for modifier in modifiers:
        key = modifier.identifier()
        if key in state:
            into(modifier, state[key])


def check_keys(modifiers: Modifiers, state: Mapping[str, Any]) -> None:
    """Check that a state is of these very modifiers or stages, or raise an IndexError."""
    if isinstance(modifiers, Mapping):
        _compare("stages", set(modifiers), set(state))
        for stage, members in modifiers.items():
            check_keys(members, state[stage])
    else:
        _compare("modifiers", {modifier.identifier() for modifier in modifiers}, set(state))


def _compare(kind: str, expected: set[str], found: set[str]) -> None:
    if expected != found:
        without, unknown = few(sorted(expected - found)), few(sorted(found - expected))
        raise IndexError(
            f"the state does not belong to this recipe: {kind} without a state: {without}, "
            f"unknown {kind} in the state: {unknown} "
            "(a modifier is known by its settings: changing one makes it another modifier)"
        )
