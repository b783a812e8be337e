"""What is attached to a model: all modifiers of a recipe or none, and to the model that is trained.

A modifier that has been initialised is not initialised again, so one that is left over from a try
that has failed would do nothing to the model of the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch.nn import Module

from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.utils.text import few


@contextmanager
def attaching(modifiers: Iterable[Any], module: Module) -> Iterator[None]:
    """Within the block modifiers are initialised; of an error none that was not before is left."""
    found = list(modifiers)
    before = [one.initialized for one in found]
    try:
        yield
    except BaseException:
        for one, was in zip(found, before, strict=True):
            if one.initialized and not was:
                with suppress(Exception):  # the error that is raised tells more
                    one.finalize(module)
        raise


def require_unused(modifiers: Iterable[Any]) -> None:
    """Check that modifiers have not been through a training: they would not start again.

    :raises RuntimeError: naming those that have
    """
    used = [type(one).__name__ for one in modifiers if getattr(one, "_started", None) is True]
    if used:
        raise RuntimeError(
            f"{few(dict.fromkeys(used))} would not start again after a run that was finalized: "
            "take a new manager, ScheduledModifierManager.from_yaml(str(manager))"
        )


def require_masks_in(module: Module, modifiers: Iterable[Any]) -> None:
    """Check that initialised modifiers have their masks in the model that is trained.

    :raises RuntimeError: naming one whose masks are in another model
    """
    own = {id(param) for param in module.parameters()}
    for one in modifiers:
        masks = one._masks if isinstance(one, BasePruningModifier) else None
        if masks is not None and masks.params and own.isdisjoint(map(id, masks.params)):
            raise RuntimeError(
                f"the masks of {type(one).__name__} are in another model than this "
                f"{type(module).__name__}: take a new manager for it"
            )
