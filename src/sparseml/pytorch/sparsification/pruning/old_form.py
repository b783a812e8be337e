"""What SparseML 1.x calls the parts of a pruning modifier, for code written for it.

There a pruner is a mask creator, a scorer and a ``ModuleParamPruningMask``. Built-in modifiers show
their method, pattern and masks in these forms when asked, and a class that says
``_get_scorer`` or ``_get_mask_creator`` decides by what they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

from sparseml.pytorch.sparsification.pruning import door, mask_creator, scorer

_Class = TypeVar("_Class", bound=type)


def with_old_form(clazz: _Class) -> _Class:
    """Class decorator: give a modifier the names that SparseML 1.x has for its parts."""
    named = {
        "masks": ("module_masks", "The masks, None unless initialised."),
        "creator": ("mask_creator", "What makes the masks, None before initialisation."),
        "scorer": ("scorer", "What scores the parameters, None before initialisation."),
        "analyzers": ("analyzers", "What measures each parameter's sparsity, None unless ready."),
    }
    for part, (name, doc) in named.items():
        prop = property(partial(_part, name=part), doc=doc)
        setattr(clazz, name, prop)
        if part != "analyzers":
            setattr(clazz, f"_{name}", prop)
    clazz._get_mask_creator = _get_mask_creator  # type: ignore[attr-defined]
    clazz._get_scorer = _get_scorer  # type: ignore[attr-defined]
    return clazz


def decide_in_old_form(modifier: Any) -> None:
    """Let a modifier decide by the scorer or mask creator that its class says, if it does."""
    modifier._door = None
    own = type(modifier)
    creates = own._get_mask_creator is not _get_mask_creator
    if creates or own._get_scorer is not _get_scorer:
        modifier._door = door.Door(modifier)
        modifier._method = modifier._door.method(creates, modifier.global_sparsity)


def _part(modifier: Any, name: str) -> Any:
    if modifier._masks is None and (modifier._door is None or name in ("masks", "analyzers")):
        return None
    if modifier._door is None:
        modifier._door = door.Door(modifier)
    return getattr(modifier._door, name)


def _get_mask_creator(modifier: Any, param_names: Sequence[str], params: Sequence[Any]) -> Any:
    """Return what makes masks of scores."""
    return mask_creator.creator_of(modifier._pattern, len(params))


def _get_scorer(modifier: Any, params: Sequence[Any]) -> Any:
    """Return what scores parameters."""
    return scorer.scorer_of(modifier.method, params)
