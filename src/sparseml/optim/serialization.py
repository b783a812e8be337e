"""How single values are written into recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from sparseml.optim.yaml_text import RecipeLoader, dump

__all__ = ["field_text", "metadata_text"]


def _reads_back(value: Any, text: str, same: Callable[[Any, Any], bool]) -> bool:
    try:
        document = yaml.load(f"key: {text}\n", Loader=RecipeLoader)
    except (yaml.YAMLError, ValueError):
        return False
    return isinstance(document, dict) and list(document) == ["key"] and same(document["key"], value)


def _text(value: Any, same: Callable[[Any, Any], bool]) -> str:
    text = str(value)
    if isinstance(value, (bool, int)) or _reads_back(value, text, same):
        return text
    try:
        return dump(value, one_line=True)
    except yaml.YAMLError:
        # no YAML either; a recipe shows it, but cannot be read again
        return text


def _equal(read: Any, value: Any) -> bool:
    return type(read) is type(value) and read == value


def field_text(value: Any) -> str:
    """
    The value of a modifier's field as it stands in a recipe.

    That is ``str(value)`` wherever YAML reads this text as the same value, which it does for
    numbers, plain words and most lists and dicts; otherwise YAML on one line.
    """
    return _text(value, _equal)


def metadata_text(value: Any) -> str:
    """
    A value of a recipe's metadata as it stands in a recipe.

    Metadata informs people, so this is ``str(value)`` as long as YAML reads something that looks
    the same; None stands as ``None``.
    """
    return _text(value, lambda read, given: str(read) == str(given))
