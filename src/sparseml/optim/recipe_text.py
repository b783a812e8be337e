"""
The text of a recipe, made from its modifiers.

The text is stable to the character: it is stored in checkpoints and compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.serialization import metadata_text
from sparseml.utils.constants import RECIPE_METADATA_KEY

__all__ = ["metadata_lines", "modifier_lines", "recipe_lines"]

_VERSION_LINE = "version: 1.1.0"

Modifiers = Sequence[BaseModifier] | Mapping[str, Sequence[BaseModifier]]


def modifier_lines(modifiers: Sequence[BaseModifier]) -> list[str]:
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
    """
    The metadata of a recipe or of one stage, and an empty line; nothing if there is none.

    :param metadata: ``{"__metadata__": entry}``, or an entry for each stage
    :param stage: the stage, None for a recipe without stages
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
    stage: str, modifiers: Sequence[BaseModifier], metadata: Mapping[str, Any] | None
) -> list[str]:
    return [
        f"{stage}:",
        *metadata_lines(metadata, stage),
        f"  {stage}_modifiers:",
        *(f"  {line}" for line in modifier_lines(modifiers)),
        "",
    ]


def recipe_lines(modifiers: Modifiers, metadata: Mapping[str, Any] | None) -> list[str]:
    """
    A recipe as lines; the last one is empty, so that joined text ends with a line break.

    :param modifiers: the modifiers, or those of each stage
    :param metadata: as of :func:`metadata_lines`; None to leave it out
    """
    lines = [_VERSION_LINE, ""]
    if isinstance(modifiers, Mapping):
        for stage, members in modifiers.items():
            lines += _stage_lines(stage, members, metadata)
        return lines
    return [*lines, *metadata_lines(metadata), "modifiers:", *modifier_lines(modifiers)]
