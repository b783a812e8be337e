"""The parts of a recipe: groups of modifiers, stages, and variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparseml.optim.language.document import tag_key
from sparseml.utils.constants import RECIPE_METADATA_KEY

__all__ = ["GROUP_WORD", "check_if_staged_recipe", "is_group_key", "stages_of", "variables_of"]

GROUP_WORD = "modifiers"


def is_group_key(key: Any) -> bool:
    """Whether a key's text announces modifiers."""
    return GROUP_WORD in str(key)


def stages_of(container: Mapping[Any, Any]) -> dict[Any, Any]:
    """The stages of a recipe: those values of root keys that are mappings with a group in them."""
    return {
        key: value
        for key, value in container.items()
        if key != RECIPE_METADATA_KEY
        and isinstance(value, Mapping)
        and not tag_key(value)
        and any(map(is_group_key, value))
    }


def check_if_staged_recipe(container: Mapping[Any, Any]) -> bool:
    """Whether a recipe has stages."""
    return bool(stages_of(container))


def variables_of(container: Mapping[Any, Any]) -> dict[Any, Any]:
    """The variables at the root of a recipe, or in a stage."""
    stages = stages_of(container)
    return {
        key: value
        for key, value in container.items()
        if not (is_group_key(key) and (isinstance(value, list) or value is None))
        and key not in stages
    }
