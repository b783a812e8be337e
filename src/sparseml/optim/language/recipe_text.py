"""The text of a recipe, made from its modifiers, and of single values in it.

The text is stable to the character: it is stored in checkpoints and compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import yaml

from sparseml.optim.language.yaml_text import RecipeLoader, dump
from sparseml.utils.constants import RECIPE_METADATA_KEY
from sparseml.utils.written_number import WrittenNumber

_VERSION_LINE = "version: 1.1.0"


class Writable(Protocol):
    """What is written as an item of a group: a modifier."""

    def to_lines(self, bullet: str = "", indent: str = "    ") -> list[str]: ...


Modifiers = Sequence[Writable] | Mapping[str, Sequence[Writable]]


def _reads_back(value: Any, text: str, same: Callable[[Any, Any], bool]) -> bool:
    try:
        document = yaml.load(f"key: {text}\n", Loader=RecipeLoader)
    except (yaml.YAMLError, ValueError):
        return False
    return isinstance(document, dict) and list(document) == ["key"] and same(document["key"], value)


def _text(value: Any, same: Callable[[Any, Any], bool]) -> str:
    text = str(value)
    if isinstance(value, (bool, int, WrittenNumber)) or _reads_back(value, text, same):
        return text
    try:
        return dump(value, one_line=True)
    except yaml.YAMLError:
        # no YAML either; a recipe shows it, but cannot be read again
        return text


def _equal(read: Any, value: Any) -> bool:
    return type(read) is type(value) and read == value


def field_text(value: Any) -> str:
    """The value of a modifier's field as it stands in a recipe.

    That is ``str(value)`` wherever YAML reads this text as the same value, which it does for
    numbers, plain words and most lists and dicts; otherwise YAML on one line.
    """
    return _text(value, _equal)


def metadata_text(value: Any) -> str:
    """A value of a recipe's metadata as it stands in a recipe.

    Metadata informs people, so this is ``str(value)`` as long as YAML reads something that looks
    the same; None stands as ``None``.
    """
    return _text(value, lambda read, given: str(read) == str(given))


def modifier_lines(modifiers: Sequence[Writable]) -> list[str]:
    """The items of a group, an empty line after each."""
    lines = []
    for modifier in modifiers:
        lines += [*modifier.to_lines(bullet="    - ", indent=" " * 8), ""]
    return lines


def _nested_lines(items: Mapping[str, Any], indent: int) -> list[str]:
    lines = []
    for key, value in items.items():
        if isinstance(value, Mapping) and value:
            lines += [f"{' ' * indent}{key}:", *_nested_lines(value, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{key}: {metadata_text(value)}")
    return lines


def metadata_lines(metadata: Mapping[str, Any] | None, stage: str | None = None) -> list[str]:
    """The metadata of a recipe or of one stage, and an empty line; nothing if there is none.

    :param metadata: ``{"__metadata__": entry}``, or an entry for each stage
    """
    if not metadata:
        return []
    if stage is None:
        entry, head, indent = metadata.get(RECIPE_METADATA_KEY), f"{RECIPE_METADATA_KEY}:", 2
    else:
        entry, head, indent = metadata.get(stage), f"  {RECIPE_METADATA_KEY}:", 4
    if isinstance(entry, Mapping):
        return [head, *_nested_lines(entry, indent), ""]
    return [head if stage is None else f"{head} None", ""]


def _stage_lines(
    stage: str, modifiers: Sequence[Writable], metadata: Mapping[str, Any] | None
) -> list[str]:
    return [
        f"{stage}:",
        *metadata_lines(metadata, stage),
        f"  {stage}_modifiers:",
        *(f"  {line}" for line in modifier_lines(modifiers)),
        "",
    ]


def recipe_lines(modifiers: Modifiers, metadata: Mapping[str, Any] | None) -> list[str]:
    """A recipe as lines; the last one is empty, so that joined text ends with a line break.

    :param metadata: as of :func:`metadata_lines`; None to leave it out
    """
    lines = [_VERSION_LINE, ""]
    if isinstance(modifiers, Mapping):
        for stage, members in modifiers.items():
            lines += _stage_lines(stage, members, metadata)
        return lines
    return [*lines, *metadata_lines(metadata), "modifiers:", *modifier_lines(modifiers)]
