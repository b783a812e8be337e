"""Modifiers made from a recipe that was read and evaluated.

Of which class they are the tags say; nothing here knows more of them than their fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from sparseml.optim.errors import RecipeValueError
from sparseml.optim.language.construction import construct
from sparseml.optim.language.document import (
    GROUP_WORD,
    TAG_PREFIX,
    Document,
    Path,
    children,
    is_group_key,
    parse,
    stages_of,
    tag_key,
)
from sparseml.optim.language.expressions import evaluate
from sparseml.optim.language.source import RecipeSource
from sparseml.utils.text import few, shortened

Modifiers = list[Any] | dict[str, list[Any]]
"""The modifiers of a recipe, or those of each stage."""


def _tagged_parts(container: Any, path: Path) -> Iterator[Path]:
    """Yield where modifiers stand in ``container``."""
    if tag_key(container):
        yield path
    for key, value in children(container):
        yield from _tagged_parts(value, (*path, key))


def _with_sorted_keys(value: Any) -> Any:
    """Return mappings as recipes of SparseML 1.x show them, their keys in order at every depth."""
    if isinstance(value, list):
        return [_with_sorted_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    keys = list(value)
    with suppress(TypeError):  # keys of several kinds have no order
        keys.sort()
    return {key: _with_sorted_keys(value[key]) for key in keys}


class _Builder:
    """Makes modifiers of the parts of a recipe; its errors say where they stand."""

    def __init__(self, document: Document, framework: str, sort: bool) -> None:
        self._document, self._framework, self._sorted = document, framework, sort

    def modifier(self, item: Any, path: Path) -> Any:
        key = tag_key(item)
        if key is None:
            must = "a modifier must begin with its tag, as '- !Name'"
            raise self._error(f"{must}; found {shortened(item)}", path)
        nested = item[key]
        tag_path = (*path, key)
        # the fields stand below the tag's key or beside it
        beside = {name: value for name, value in item.items() if name != key}
        fields = {**beside, **nested} if isinstance(nested, dict) else beside
        if self._sorted:
            fields = {name: _with_sorted_keys(value) for name, value in fields.items()}
        field_path = tag_path if isinstance(nested, dict) else path
        for part in _tagged_parts(fields, ()):
            raise self._error("a modifier cannot stand inside a modifier", (*field_path, *part))
        name = key.removeprefix(TAG_PREFIX)
        return construct(self._document, name, fields, tag_path, field_path, self._framework)

    def groups(self, mapping: Mapping[Any, Any], path: Path = ()) -> list[Any]:
        modifiers = []
        stages = {} if path else stages_of(mapping)
        for key, value in mapping.items():
            if is_group_key(key) and isinstance(value, list):
                modifiers += [self.modifier(m, (*path, key, i)) for i, m in enumerate(value)]
                continue
            for part in () if key in stages else _tagged_parts(value, (*path, key)):
                dotted = shortened(".".join(str(key) for key in part if not isinstance(key, int)))
                raise self._error(
                    f"modifiers must stand in a list under a key whose name contains "
                    f"'{GROUP_WORD}', at the root or in a stage; found some under {dotted}",
                    part,
                    found=dotted,
                )
        return modifiers

    def all(self, container: Any) -> Modifiers:
        if tag_key(container):
            return [self.modifier(container, ())]
        if isinstance(container, list):
            container = {GROUP_WORD: container}
            marks = self._document.marks
            self._document.marks = {(GROUP_WORD, *path): mark for path, mark in marks.items()}
        root = container if isinstance(container, dict) else {}
        at_root = self.groups(root)
        stages = {
            str(key): self.groups(stage, (key,))
            for key, stage in sorted(stages_of(root).items(), key=lambda item: str(item[0]))
        }
        if at_root and stages:
            raise self._error(
                f"groups of modifiers must stand either all at the root or all in stages; "
                f"found the stages {few(map(shortened, stages))} and a group beside them"
            )
        if not at_root and not any(stages.values()):
            self._refuse_mappings(root, ())
            fault = "has no modifiers" if self._document.source.text.strip() else "is empty"
            raise self._error(
                f"the recipe {fault}: it needs a list of them under a key whose name contains "
                f"'{GROUP_WORD}'"
            )
        return stages or at_root

    def _refuse_mappings(self, value: Any, path: Path) -> None:
        """Say of modifiers that are written as mappings how they are written here."""
        for key, item in children(value):
            if is_group_key(key) and isinstance(item, dict) and item:
                raise self._error(
                    f"{shortened(key)} must be a list of modifiers, each '- !Name' with its fields "
                    "below; found a mapping, as in recipes of llm-compressor and "
                    "sparseml.modifiers, which are another language",
                    (*path, key),
                )
            self._refuse_mappings(item, (*path, key))

    def _error(self, message: str, path: Path = (), **details: Any) -> RecipeValueError:
        return self._document.error(RecipeValueError, message, path, **details)


def build_modifiers(document: Document, container: Any, framework: str) -> Modifiers:
    """Make all modifiers of a recipe.

    :param container: the recipe as plain data, evaluated
    :return: in the order of the text; stages by name
    :raises RecipeTagError: if one of them is not known
    :raises RecipeError: if there are none, or one refuses its fields
    """
    return _Builder(document, framework, sort=True).all(container)


def load_modifiers(yaml_str: str, framework: str) -> Modifiers:
    """Make the modifiers of a recipe's text, its variables being what it says.

    :param yaml_str: the text, never a path
    :raises RecipeError: if anything is wrong with the recipe
    """
    document = parse(RecipeSource(yaml_str))
    return build_modifiers(document, evaluate(document)[0], framework)


def load_modifier(yaml_str: str, framework: str) -> Any:
    """Make the one modifier of a text, else a RecipeError; expressions are not evaluated."""
    document = parse(RecipeSource(yaml_str))
    return _Builder(document, framework, sort=False).modifier(document.container, ())
