"""How sparse and how dense a single parameter may become where all are ranked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sparseml.pytorch.functional.budgets import Budget, Global, Uniform
from sparseml.pytorch.functional.patterns import Pattern
from sparseml.pytorch.functional.select import check_selection
from sparseml.pytorch.sparsification.pruning.settings.fields import out_in_shapes
from sparseml.pytorch.utils.params import NamedLayerParam

_FIELDS = ("max_sparsity_per_param", "min_sparsity_per_param")


def _limits(modifier: Any) -> dict[str, float]:
    """The limits that are fixed; a ``layer_floor`` always leaves room."""
    return {name: value for name in _FIELDS if (value := getattr(modifier, name)) is not None}


def budget_of(modifier: Any, final: float) -> Budget:
    """Return the budget that the fields of a modifier describe, which ends with ``final``."""
    if not modifier.global_sparsity:
        return Uniform()
    limits, floor = _limits(modifier), getattr(modifier, "layer_floor", None) or 0.0
    if not limits:
        return Global(floor=floor)
    return Global(
        max_sparsity=limits.get("max_sparsity_per_param", 1.0),
        min_sparsity=limits.get("min_sparsity_per_param", 0.0),
        final=final,
        floor=floor,
    )


def require_sensible_limits(modifier: Any, field: str) -> None:
    """Check that the limits of a modifier fit its other fields.

    :param field: the one that says the final sparsity
    :raises ValueError: naming the fields that contradict each other
    """
    limits, final, owner = _limits(modifier), getattr(modifier, field), type(modifier).__name__
    if limits and not modifier.global_sparsity:
        raise ValueError(
            f"{', '.join(limits)} of {owner} needs global_sparsity: True; "
            "without it every parameter gets the sparsity asked for"
        )
    if not limits or isinstance(final, Mapping):
        return
    least = limits.get("min_sparsity_per_param", 0.0)
    if not least <= final <= limits.get("max_sparsity_per_param", 1.0):
        raise ValueError(
            f"{field} of {owner} must lie between min_sparsity_per_param and "
            f"max_sparsity_per_param, found {final} with {limits}"
        )


def require_room(
    budget: Budget, pattern: Pattern, selected: Sequence[NamedLayerParam], final: float
) -> None:
    """Check that limits leave room for the final sparsity; a ValueError says how many can go."""
    if isinstance(budget, Global) and budget != Global():
        check_selection(out_in_shapes(selected), pattern, budget, final)
