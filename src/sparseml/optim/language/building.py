"""
Modifiers made from a recipe that was read and evaluated.

Of which class they are the tags say; nothing here knows more of them than their fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparseml.optim.errors import RecipeValueError
from sparseml.optim.language.construction import construct
from sparseml.optim.language.document import TAG_PREFIX, Document, Path, parse, tag_key
from sparseml.optim.language.expressions import evaluate
from sparseml.optim.language.source import RecipeSource
from sparseml.optim.language.structure import GROUP_WORD, is_group_key, stages_of
from sparseml.utils.text import shortened

__all__ = ["Modifiers", "build_modifiers", "load_modifier", "load_modifiers"]

Modifiers = list[Any] | dict[str, list[Any]]
"""The modifiers of a recipe, or those of each stage."""


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


def _build_modifier(document: Document, item: Any, path: Path, framework: str) -> Any:
    """
    Make the modifier that a part of a recipe describes.

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
    tag_path = (*path, key)
    # the fields stand below the tag's key or beside it
    beside = {name: value for name, value in item.items() if name != key}
    fields = {**beside, **nested} if isinstance(nested, dict) else beside
    field_path = tag_path if isinstance(nested, dict) else path
    for part in _tagged_parts(fields, ()):
        message = "a modifier cannot stand inside a modifier"
        raise document.error(RecipeValueError, message, (*field_path, *part))
    name = key.removeprefix(TAG_PREFIX)
    return construct(document, name, fields, tag_path, field_path, framework)


def _dotted(path: Path) -> str:
    return shortened(".".join(str(part) for part in path if not isinstance(part, int)))


def _groups(
    document: Document, mapping: Mapping[Any, Any], path: Path, framework: str
) -> list[Any]:
    modifiers = []
    stages = {} if path else stages_of(mapping)
    for key, value in mapping.items():
        if is_group_key(key) and isinstance(value, list):
            for index, item in enumerate(value):
                modifiers.append(_build_modifier(document, item, (*path, key, index), framework))
            continue
        for part in () if key in stages else _tagged_parts(value, (*path, key)):
            raise document.error(
                RecipeValueError,
                f"modifiers must stand in a list under a key whose name contains '{GROUP_WORD}', "
                f"at the root or in a stage; found some under {_dotted(part)}",
                part,
                found=_dotted(part),
            )
    return modifiers


def build_modifiers(document: Document, container: Any, framework: str) -> Modifiers:
    """
    Make all modifiers of a recipe.

    :param document: the recipe, for the places of errors
    :param container: the recipe as plain data, evaluated
    :param framework: whose modifiers the tags name
    :return: the modifiers in the order of the text, or those of each stage, stages by name
    :raises RecipeError: if there are none, or one is not valid
    """
    if tag_key(container):
        return [_build_modifier(document, container, (), framework)]
    if isinstance(container, list):
        container = {GROUP_WORD: container}
        document.marks = {(GROUP_WORD, *path): mark for path, mark in document.marks.items()}
    if not isinstance(container, dict):
        raise _no_modifiers(document)
    at_root = _groups(document, container, (), framework)
    stages = {
        str(key): _groups(document, stage, (key,), framework)
        for key, stage in sorted(stages_of(container).items(), key=lambda item: str(item[0]))
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


def load_modifiers(yaml_str: str, framework: str) -> Modifiers:
    """
    Make the modifiers of a recipe's text, its variables being what it says.

    :param yaml_str: the text, never a path
    :param framework: whose modifiers the tags name
    :raises RecipeError: if anything is wrong with the recipe
    """
    document = parse(RecipeSource(yaml_str))
    return build_modifiers(document, evaluate(document)[0], framework)


def load_modifier(yaml_str: str, framework: str) -> Any:
    """
    Make the one modifier of a text; expressions are not evaluated.

    :param yaml_str: a tag and its fields
    :param framework: whose modifiers the tags name
    :raises RecipeError: if the text is anything else
    """
    document = parse(RecipeSource(yaml_str))
    return _build_modifier(document, document.container, (), framework)
