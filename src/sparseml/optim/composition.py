"""One recipe after another, as stages of one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.scheduled import BaseScheduled
from sparseml.utils.constants import RECIPE_METADATA_KEY

__all__ = ["compose"]

Stages = dict[str, list[BaseModifier]]


class Ordered(Protocol):
    """What composing needs of a manager: its modifiers, in order, and what is known of them."""

    @property
    def modifiers(self) -> list[BaseModifier] | Mapping[str, list[BaseModifier]]: ...

    @property
    def metadata(self) -> dict[str, Any] | None: ...

    @property
    def max_epochs(self) -> int: ...


def _stage_names(base: Ordered, additional: Ordered) -> tuple[str, str]:
    """Return names for those of the two recipes that have no stages of their own."""
    if isinstance(base.modifiers, Mapping):
        return "", f"stage_{len(base.modifiers) + 1}"
    if isinstance(additional.modifiers, Mapping):
        return f"pre_{next(iter(additional.modifiers))}", ""
    return "stage_0", "stage_1"


def _named(recipe: Ordered, name: str) -> tuple[Stages, dict[str, Any]]:
    metadata = dict(recipe.metadata or {})
    if isinstance(recipe.modifiers, Mapping):
        return dict(recipe.modifiers), metadata
    return {name: recipe.modifiers}, {name: metadata.get(RECIPE_METADATA_KEY)}


def _scheduled(stages: Stages) -> list[BaseScheduled]:
    return [m for stage in stages.values() for m in stage if isinstance(m, BaseScheduled)]


def _shift(first: Stages, second: Stages, epochs: int) -> None:
    for modifier in _scheduled(first):
        if modifier.end_epoch == -1:
            # Also of modifiers that allow no end but -1: from here on they belong to a stage.
            # Recipe texts of SparseML 1.x show this end as the whole number that it is.
            modifier._end_epoch = modifier._init_end = epochs
    for modifier in _scheduled(second):
        modifier.advance_epochs(ref_start_epoch=epochs)


def compose(
    base: Ordered, additional: Ordered, keep_original_epochs: bool
) -> tuple[Stages, dict[str, Any]]:
    """Return the stages and metadata of ``additional`` following ``base``; change both's modifiers.

    :param keep_original_epochs: leave all epochs as they are, instead of ending the base's endless
        modifiers where the base ends and starting the additional ones from there
    :raises ValueError: if a stage name occurs in both, or a schedule to shift is given in steps
    """
    base_name, additional_name = _stage_names(base, additional)
    first, first_metadata = _named(base, base_name)
    second, second_metadata = _named(additional, additional_name)
    shared = sorted(set(first) & set(second))
    if shared:
        raise ValueError(f"both recipes have stages named {shared}; rename those of one of them")
    if not keep_original_epochs:
        _shift(first, second, max(base.max_epochs, 0))
    metadata = {**first_metadata, **second_metadata}
    return {**first, **second}, metadata if base.metadata or additional.metadata else {}
