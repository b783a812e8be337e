"""Constructors that also take a schedule in optimizer steps.

Wherever a scheduled modifier takes ``start_epoch``, ``end_epoch`` or ``update_frequency`` it also
takes ``start_step``, ``end_step`` or ``update_steps``. How many steps make an epoch is known only
when training starts, so such a modifier is made with provisional epochs, and
``resolve_steps(steps_per_epoch)`` puts the real ones in their place.
"""

from __future__ import annotations

import inspect
import math
from abc import ABCMeta
from typing import Any

STEP_TWINS = {
    "start_step": "start_epoch",
    "end_step": "end_epoch",
    "update_steps": "update_frequency",
}
"""Each step field and the epoch field that it replaces."""


def _whole_steps(name: str, field: str, value: Any) -> int:
    least = 1 if field == "update_steps" else 0
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{field} of {name} must be a whole number of steps, at least {least}, found {value!r}"
        )
    return int(value)


def _provisional_epochs(steps: dict[str, int]) -> dict[str, float]:
    """Return epochs that a constructor accepts if any number of steps per epoch would do.

    An epoch has at least one step, so the number of steps bounds ends and frequencies from above
    and 0 bounds a start from below.
    """
    epochs = {STEP_TWINS[field]: float(value) for field, value in steps.items()}
    if steps.get("start_step", 0) < steps.get("end_step", math.inf) and "start_step" in steps:
        epochs["start_epoch"] = 0.0
    return epochs


class StepsMeta(ABCMeta):
    """Let every scheduled class take step fields without its constructor knowing about them."""

    @property
    def __signature__(cls) -> inspect.Signature:
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        steps = {
            field: _whole_steps(cls.__name__, field, value)
            for field in STEP_TWINS
            if (value := kwargs.pop(field, None)) is not None
        }
        if not steps:
            modifier = super().__call__(*args, **kwargs)
            modifier.check_whole()
            return modifier
        cls._check_twins(steps, args, kwargs)
        if steps.get("end_step", math.inf) < steps.get("start_step", 0):
            raise ValueError(
                f"end_step of {cls.__name__} must be at least start_step, "
                f"found start_step {steps['start_step']} and end_step {steps['end_step']}"
            )
        epochs = _provisional_epochs(steps)
        modifier = super().__call__(*args, **kwargs, **epochs)
        for field in steps:
            twin = STEP_TWINS[field]
            if getattr(modifier, f"_{twin}", None) != epochs[twin]:
                raise ValueError(f"{cls.__name__} does not use {field}: its {twin} is fixed")
        vars(modifier).update({f"_{field}": value for field, value in steps.items()})
        modifier._steps_resolved = False
        modifier.check_whole()
        return modifier

    def _check_twins(
        cls, steps: dict[str, int], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        parameters = cls.__signature__.parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        given = {*list(parameters)[: len(args)], *kwargs}
        for field in steps:
            twin = STEP_TWINS[field]
            if twin not in parameters and not (open_ended and hasattr(cls, twin)):
                raise TypeError(f"{cls.__name__} got an unexpected keyword argument '{field}'")
            if twin in given:
                raise ValueError(f"{cls.__name__} takes {twin} or {field}, not both")
