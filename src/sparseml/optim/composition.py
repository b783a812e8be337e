"""One recipe after another, as stages of one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.scheduled import BaseScheduled
from sparseml.utils.constants import RECIPE_METADATA_KEY

if TYPE_CHECKING:
    from sparseml.optim.manager import BaseManager

__all__ = ["compose"]

Stages = dict[str, list[BaseModifier]]


def _stages_of(manager: BaseManager) -> Stages | None:
    return dict(manager.modifiers) if isinstance(manager.modifiers, Mapping) else None


def _stage_names(base: Stages | None, additional: Stages | None) -> tuple[str, str]:
    """Names for those of the two recipes that have no stages of their own."""
    if base is not None:
        return "", f"stage_{len(base) + 1}"
    if additional is not None:
        return f"pre_{next(iter(additional))}", ""
    return "stage_0", "stage_1"


def _named(manager: BaseManager, stages: Stages | None, name: str) -> tuple[Stages, dict[str, Any]]:
    metadata = dict(manager.metadata or {})
    if stages is not None:
        return stages, metadata
    return {name: list(manager.iter_modifiers())}, {name: metadata.get(RECIPE_METADATA_KEY)}


def _shift(base: BaseManager, additional: BaseManager) -> None:
    base_epochs = max(base.max_epochs, 0)
    for modifier in base.iter_modifiers():
        if isinstance(modifier, BaseScheduled) and modifier.end_epoch == -1:
            # Also of modifiers that allow no end but -1: from here on they belong to a stage.
            # Recipe texts of SparseML 1.x show this end as the whole number that it is.
            modifier._end_epoch = modifier._init_end = base_epochs
    for modifier in additional.iter_modifiers():
        if isinstance(modifier, BaseScheduled):
            modifier.advance_epochs(ref_start_epoch=float(base_epochs))


def compose(
    base: BaseManager, additional: BaseManager, keep_original_epochs: bool
) -> tuple[Stages, dict[str, Any]]:
    """
    The stages and metadata of ``additional`` following ``base``. Changes the modifiers of both.

    :param keep_original_epochs: leave all epochs as they are, instead of ending the base's endless
        modifiers where the base ends and starting the additional ones from there
    :raises ValueError: if a stage name occurs in both, or a schedule to shift is given in steps
    """
    base_stages, additional_stages = _stages_of(base), _stages_of(additional)
    base_name, additional_name = _stage_names(base_stages, additional_stages)
    first, first_metadata = _named(base, base_stages, base_name)
    second, second_metadata = _named(additional, additional_stages, additional_name)
    shared = sorted(set(first) & set(second))
    if shared:
        raise ValueError(f"both recipes have stages named {shared}; rename those of one of them")
    if not keep_original_epochs:
        _shift(base, additional)
    metadata = {**first_metadata, **second_metadata}
    return {**first, **second}, metadata if base.metadata or additional.metadata else {}
