"""Values given from outside for the variables of a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sparseml.optim.errors import RecipeTypeError, RecipeValueError
from sparseml.optim.language.document import TAG_PREFIX, Document, is_group_key, stages_of
from sparseml.utils.text import did_you_mean

_MAX_TEXT = 1_000_000
_MAX_DEPTH = 20


def _parse_csv(text: str) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for item in text.replace(":", "=").split(","):
        key, _, value = (part.strip() for part in item.partition("="))
        if item.count("=") != 1 or not key or any(mark in key for mark in "{!=}"):
            raise RecipeValueError(
                f"recipe variables must be JSON, or 'name=value' separated by commas; "
                f"found {item.strip()[:100]!r}",
                found=item,
            )
        try:
            variables[key] = float(value)
        except ValueError:
            variables[key] = value
    return variables


def parse_recipe_variables(
    recipe_variables: dict[str, Any] | str | None = None,
) -> dict[str, Any]:
    """Return recipe variables as a dict.

    :param recipe_variables: a dict, a JSON object, or text ``"name=value, name=value"`` (also with
        ``:`` for ``=``), in which values become floats where possible
    :return: values by name; a dict is returned as it is
    :raises RecipeValueError: for anything else
    """
    if not recipe_variables:
        return {}
    if isinstance(recipe_variables, dict):
        return recipe_variables
    if not isinstance(recipe_variables, str):
        text = f"recipe variables must be a dict or text, found {type(recipe_variables).__name__}"
        raise RecipeValueError(text, found=recipe_variables)
    if len(recipe_variables) > _MAX_TEXT:
        raise RecipeValueError(f"recipe variables are longer than {_MAX_TEXT} characters")
    try:
        variables = json.loads(recipe_variables)
    except (ValueError, RecursionError):
        return _parse_csv(recipe_variables)
    if not isinstance(variables, dict):
        must = "recipe variables must be a JSON object of names and values"
        raise RecipeValueError(f"{must}, found {recipe_variables[:100]!r}", found=variables)
    return variables


def _plain(name: str, value: Any, depth: int = 0) -> Any:
    """``value`` as a recipe can hold it; numbers and lists of numpy lose their type."""
    if depth > _MAX_DEPTH:
        raise RecipeValueError(f"the value for {name!r} is nested too deeply", key=name)
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        items = value.items()
        return {_plain(name, key, depth + 1): _plain(name, v, depth + 1) for key, v in items}
    if isinstance(value, (list, tuple)):
        return [_plain(name, item, depth + 1) for item in value]
    if isinstance(value, (str, int, float)):
        # subclasses, among them the members of enumerations and numpy's float64
        if isinstance(value, str):
            return str.__str__(value)
        return int(value) if isinstance(value, int) else float(value)
    convert = getattr(value, "tolist", None)
    if callable(convert):
        return _plain(name, convert(), depth + 1)
    raise RecipeTypeError(
        f"the value for {name!r} must be text, a number, a list or a dict, "
        f"found {type(value).__name__}",
        key=name,
        found=value,
    )


def _is_replaceable(key: Any, value: Any, staged: bool) -> bool:
    if isinstance(value, list):
        modifiers = bool(value) and all(isinstance(item, Mapping) for item in value)
        return not modifiers and (bool(value) or not is_group_key(key))
    return not (staged and isinstance(value, Mapping))


def override_variables(document: Document, variables: Mapping[str, Any]) -> None:
    """
    Replace variables of a recipe, at its root and, if it has stages, in each stage that has them.

    :param variables: the new values by name; they may be expressions
    :raises RecipeValueError: if the recipe has no such variable
    :raises RecipeTypeError: if a value cannot stand in a recipe
    """
    if not variables:
        return
    root = document.container
    if not isinstance(root, dict):
        raise document.error(RecipeValueError, "the recipe has no variables")
    stages = list(stages_of(root).values())
    places = [
        (
            mapping,
            {key for key, v in mapping.items() if _is_replaceable(key, v, bool(stages) and not i)},
        )
        for i, mapping in enumerate((root, *stages))
    ]
    known = sorted({str(key) for _, keys in places for key in keys})
    for name, value in variables.items():
        holders = [mapping for mapping, keys in places if name in keys]
        if not holders or str(name).startswith(TAG_PREFIX):
            raise document.error(
                RecipeValueError,
                f"the recipe has no variable {name!r}{did_you_mean(str(name), known)}",
                key=str(name),
                found=name,
                allowed=known,
            )
        for mapping in holders:
            mapping[name] = _plain(name, value)
