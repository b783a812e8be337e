"""Groups of parameters by name: the field of a recipe, and the positions that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparseml.pytorch.sparsification.fields import as_names
from sparseml.pytorch.utils.names import canonical_name
from sparseml.utils.constants import STRUCTURED_TOKEN
from sparseml.utils.text import did_you_mean, shown


def as_structured_names(name: str, value: Any) -> str | list[str]:
    """``value`` as names, or a token: also that for all that can be removed; or a ValueError."""
    if isinstance(value, str) and value.upper() == STRUCTURED_TOKEN:
        return STRUCTURED_TOKEN
    return as_names(name, value)


def as_param_groups(name: str, value: Any) -> list[list[str]]:
    """``value`` as lists of names, None as no groups; a ValueError for anything else."""
    groups = [] if value is None else value
    if not isinstance(groups, (list, tuple)) or not all(map(_are_names, groups)):
        raise ValueError(f"{name} must be a list of lists of parameter names, found {shown(value)}")
    return [list(group) for group in groups]


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value)


def as_dependency_map(name: str, value: Any) -> dict[str, list[str]]:
    """``value`` as a mapping from comma separated names to lists of names, or a ValueError."""
    if not isinstance(value, Mapping) or not (
        _are_names(list(value)) and all(map(_are_names, value.values()))
    ):
        raise ValueError(
            f"{name} must map comma separated parameter names to lists of parameter names, "
            f"found {shown(value)}"
        )
    return {key: list(names) for key, names in value.items()}


def group_indices(
    groups: Sequence[Sequence[str]], names: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """Return where the members of each group stand in ``names``; other names are on their own.

    :raises ValueError: for names that are unknown or in two places
    """
    places = {name: place for place, name in enumerate(names)}
    found = []
    seen: set[str] = set()
    for given in groups:
        group = [canonical_name(name) for name in given]
        for name in group:
            if name not in places:
                raise ValueError(
                    f"param_groups names {shown(name)}, which is none of the "
                    f"{len(names)} parameters that params selects{did_you_mean(name, names)}"
                )
            if name in seen:
                raise ValueError(f"param_groups names {shown(name)} twice")
            seen.add(name)
        found.append(tuple(places[name] for name in group))
    return tuple(found)
