"""Modifiers made from a recipe that was read and evaluated."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.document import TAG_PREFIX, Document, Path, tag_key
from sparseml.optim.errors import (
    RecipeError,
    RecipeTagError,
    RecipeTypeError,
    RecipeValueError,
    matching_recipe_error,
)
from sparseml.optim.registration import IGNORED_FIELDS, registered_modifiers
from sparseml.optim.steps import STEP_TWINS
from sparseml.optim.structure import GROUP_WORD, is_group_key, is_stage
from sparseml.utils.text import did_you_mean, shortened

__all__ = ["build_modifier", "build_modifiers"]

Fields = dict[str, Any]
_ERRORS = (
    ValueError, TypeError, RuntimeError, AssertionError, LookupError, AttributeError,
    ArithmeticError,
)  # fmt: skip


def _accepted_fields(clazz: type) -> tuple[set[str], set[str]]:
    """The fields that a class accepts, and those of them that it needs."""
    accepted: set[str] = set()
    needed: set[str] | None = None
    for base in clazz.__mro__:
        init = vars(base).get("__init__")
        if base is object or init is None:
            continue
        parameters = list(inspect.signature(init).parameters.values())[1:]
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        if needed is None:
            needed = {p.name for p in named if p.default is p.empty}
        accepted |= {p.name for p in named}
        if len(named) == len(parameters):
            break  # nothing is passed on to classes further up
    accepted |= {field for field, twin in STEP_TWINS.items() if twin in accepted}
    return accepted, needed or set()


def _check_fields(document: Document, path: Path, clazz: type, fields: Fields) -> None:
    accepted, needed = _accepted_fields(clazz)
    for name in fields:
        if name in accepted:
            continue
        hint = did_you_mean(str(name), accepted)
        message = f"unknown field {shortened(name)} of !{clazz.__name__}{hint}"
        raise document.error(
            RecipeTypeError, message, (*path, name), found=name, allowed=sorted(accepted)
        )
    given = set(fields) | {twin for field, twin in STEP_TWINS.items() if field in fields}
    missing = sorted(needed - given)
    if missing:
        names = ", ".join(missing)
        raise document.error(
            RecipeTypeError, f"missing fields of !{clazz.__name__}: {names}", path, allowed=missing
        )


def _field_in(message: str, fields: Fields) -> list[str]:
    """The field that an error's message is most likely about."""
    named = [name for name in fields if name in message]
    return sorted(named, key=lambda name: (message.index(name), -len(name)))[:1]


def _build(document: Document, path: Path, name: str, fields: Fields, framework: str) -> Any:
    registered = registered_modifiers(framework)
    name = name.removeprefix(f"{framework}.")
    if name not in registered:
        raise document.error(
            RecipeTagError,
            f"unknown modifier !{name:.80}{did_you_mean(name, registered)}",
            path,
            found=f"!{name}",
            allowed=sorted(registered),
        )
    fields = {key: value for key, value in fields.items() if key not in IGNORED_FIELDS}
    try:
        _check_fields(document, path, registered[name].class_for(fields), fields)
        return registered[name].build(fields)
    except RecipeError:
        raise
    except _ERRORS as err:
        about = _field_in(str(err), fields)
        field_path = (*path, *about)
        if field_path not in document.marks:
            field_path = (*path[:-1], *about)
        message = f"!{name}: {err}"
        found = fields[about[0]] if about else None
        raise document.error(matching_recipe_error(err), message, field_path, found=found) from err


def _tagged_parts(container: Any, path: Path) -> Iterator[Path]:
    """Where modifiers stand in ``container``."""
    if tag_key(container):
        yield path
    items: Any = ()
    if isinstance(container, dict):
        items = container.items()
    elif isinstance(container, list):
        items = enumerate(container)
    for key, value in items:
        yield from _tagged_parts(value, (*path, key))


def build_modifier(document: Document, item: Any, path: Path, framework: str) -> BaseModifier:
    """
    The modifier that a part of a recipe describes.

    :param document: the recipe, for the places of errors
    :param item: the part as plain data
    :param path: where it is
    :param framework: whose modifiers the tags name
    :raises RecipeTagError: if no such modifier is known
    :raises RecipeError: if the modifier refuses its fields
    """
    key = tag_key(item)
    if key is None:
        raise document.error(
            RecipeValueError,
            f"a modifier must begin with its tag, as '- !Name'; found {shortened(item)}",
            path,
        )
    nested = item[key]
    below = nested if isinstance(nested, dict) else {}
    fields = {**{name: value for name, value in item.items() if name != key}, **below}
    for part in _tagged_parts(fields, ()):
        raise document.error(
            RecipeValueError, "a modifier cannot stand inside a modifier", (*path, *part)
        )
    field_path = (*path, key) if below else path
    if not below:
        document.marks[path] = document.marks.get((*path, key), document.marks.get(path, (1, 1)))
    return _build(document, field_path, key.removeprefix(TAG_PREFIX), fields, framework)


def _groups(
    document: Document, mapping: Mapping[Any, Any], path: Path, framework: str
) -> list[BaseModifier]:
    modifiers = []
    for key, value in mapping.items():
        if is_group_key(key) and isinstance(value, list):
            for index, item in enumerate(value):
                modifiers.append(build_modifier(document, item, (*path, key, index), framework))
            continue
        for part in () if is_stage(value) else _tagged_parts(value, (*path, key)):
            raise document.error(
                RecipeValueError,
                f"modifiers must stand in a list under a key whose name contains '{GROUP_WORD}'; "
                f"found them under {str(part[-1] if isinstance(part[-1], str) else key)!r}",
                (*path, key),
                found=key,
            )
    return modifiers


def build_modifiers(
    document: Document, container: Any, framework: str
) -> list[BaseModifier] | dict[str, list[BaseModifier]]:
    """
    All modifiers of a recipe.

    :param document: the recipe, for the places of errors
    :param container: the recipe as plain data, evaluated
    :param framework: whose modifiers the tags name
    :return: the modifiers in the order of the text, or those of each stage, stages by name
    :raises RecipeError: if there are none, or one is not valid
    """
    if tag_key(container):
        return [build_modifier(document, container, (), framework)]
    if isinstance(container, list):
        container = {GROUP_WORD: container}
        document.marks = {(GROUP_WORD, *path): mark for path, mark in document.marks.items()}
    if not isinstance(container, dict):
        raise _no_modifiers(document)
    at_root = _groups(document, container, (), framework)
    stages = {
        str(key): _groups(document, container[key], (key,), framework)
        for key in sorted(container, key=str)
        if is_stage(container[key])
    }
    if at_root and stages:
        raise document.error(
            RecipeValueError,
            f"groups of modifiers must stand either all at the root or all in stages; "
            f"found the stages {list(stages)} and a group beside them",
        )
    if not at_root and not any(stages.values()):
        raise _no_modifiers(document)
    return stages or at_root


def _no_modifiers(document: Document) -> RecipeValueError:
    fault = "has no modifiers" if document.source.text.strip() else "is empty"
    return document.error(
        RecipeValueError,
        f"the recipe {fault}: it needs a list of them under a key whose name contains "
        f"'{GROUP_WORD}'",
    )
