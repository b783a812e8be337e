"""State that classes declare by the names of its attributes, gathered over all of them.

A class says ``_progress = ("_started", "_masks")``; what its bases declare counts as well. An
attribute is saved under its name without the leading underscore. One that has a
``progress_state`` of its own (masks, samplers) is saved by it, and restored in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def gather_progress(owner: Any) -> dict[str, Any]:
    """Return the declared attributes of an object; lists and mappings copied one level deep."""
    return {name.lstrip("_"): _saved(getattr(owner, name)) for name in _declared(owner)}


def restore_progress(owner: Any, state: Mapping[str, Any]) -> None:
    """Set the declared attributes to what :func:`gather_progress` returned; none may lack."""
    for name in _declared(owner):
        own, value = getattr(owner, name), state[name.lstrip("_")]
        if hasattr(own, "load_progress_state"):
            if value is not None:
                own.load_progress_state(value)
        else:
            setattr(owner, name, _copied(value))


def _declared(owner: Any) -> list[str]:
    classes = reversed(type(owner).__mro__)
    return list(dict.fromkeys(name for c in classes for name in vars(c).get("_progress", ())))


def _saved(value: Any) -> Any:
    return value.progress_state() if hasattr(value, "progress_state") else _copied(value)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, list) else value
