"""
Schedules in optimizer steps.

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

from sparseml.optim.props import ModifierProp

__all__ = ["STEP_TWINS", "StepFields", "StepsMeta", "epoch_of_step"]

STEP_TWINS = {
    "start_step": "start_epoch",
    "end_step": "end_epoch",
    "update_steps": "update_frequency",
}
"""Each step field and the epoch field that it replaces."""


def epoch_of_step(step: int, steps_per_epoch: int) -> float:
    """
    The epoch at which a training loop takes its optimizer step ``step``, counted from 0.

    Every part of a run computes it in this way, so that equal steps give equal floats.
    """
    return step // steps_per_epoch + (step % steps_per_epoch) / steps_per_epoch


def _whole_steps(name: str, field: str, value: Any) -> int:
    least = 1 if field == "update_steps" else 0
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool) or value < least:
        raise ValueError(
            f"{field} of {name} must be a whole number of steps, at least {least}, found {value!r}"
        )
    return int(value)


def _provisional_epochs(steps: dict[str, int]) -> dict[str, float]:
    """
    Epochs that a constructor accepts if any number of steps per epoch would do.

    An epoch has at least one step, so the number of steps bounds ends and frequencies from above
    and 0 bounds a start from below.
    """
    epochs = {STEP_TWINS[field]: float(value) for field, value in steps.items()}
    if steps.get("start_step", 0) < steps.get("end_step", math.inf) and "start_step" in steps:
        epochs["start_epoch"] = 0.0
    return epochs


class StepsMeta(ABCMeta):
    """Lets every scheduled class take step fields without its constructor knowing about them."""

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
            return super().__call__(*args, **kwargs)
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


class StepFields:
    """The step fields of a scheduled modifier, all None unless given."""

    _start_step: int | None = None
    _end_step: int | None = None
    _update_steps: int | None = None
    _steps_resolved = True

    # of the scheduled class
    _start_epoch: float
    _init_start: float
    _end_epoch: float
    _init_end: float

    @ModifierProp()
    def start_step(self) -> int | None:
        """The optimizer step to start at, in place of ``start_epoch``."""
        return self._start_step

    @ModifierProp()
    def end_step(self) -> int | None:
        """The optimizer step to end at, in place of ``end_epoch``."""
        return self._end_step

    @ModifierProp()
    def update_steps(self) -> int | None:
        """Optimizer steps between updates, in place of ``update_frequency``."""
        return self._update_steps

    @property
    def has_steps(self) -> bool:
        """Whether any part of the schedule is given in steps."""
        return any(getattr(self, field) is not None for field in STEP_TWINS)

    @property
    def steps_resolved(self) -> bool:
        """Whether the epochs are the real ones; True if nothing is given in steps."""
        return self._steps_resolved

    def resolve_steps(self, steps_per_epoch: int) -> None:
        """
        Compute the epochs of what is given in steps. Calling it again changes nothing.

        :param steps_per_epoch: optimizer steps in an epoch
        :raises ValueError: if it is not a positive whole number, or the schedule does not hold
            with it
        """
        if not self.has_steps:
            return
        if not isinstance(steps_per_epoch, int) or steps_per_epoch < 1:
            raise ValueError(
                f"steps_per_epoch must be a positive whole number, found {steps_per_epoch!r}"
            )
        if self._start_step is not None:
            self._start_epoch = self._init_start = epoch_of_step(self._start_step, steps_per_epoch)
        if self._end_step is not None:
            self._end_epoch = self._init_end = epoch_of_step(self._end_step, steps_per_epoch)
        if self._update_steps is not None:
            self._update_frequency = epoch_of_step(self._update_steps, steps_per_epoch)
        try:
            self.validate_schedule()
        except ValueError as err:
            raise ValueError(f"{err}, with {steps_per_epoch} steps in an epoch") from err
        self._steps_resolved = True

    def validate_schedule(self) -> None:
        """:raises ValueError: if start and end contradict each other"""

    def check_steps_resolved(self, epoch: float = 0.0) -> None:
        """
        To be called before the schedule is used.

        :param epoch: the current epoch; an infinite one, as in one-shot use, needs no schedule
        :raises RuntimeError: if it is finite and the steps have not been resolved
        """
        if not self._steps_resolved and math.isfinite(epoch):
            raise RuntimeError(
                f"the schedule of {type(self).__name__} is given in steps: give steps_per_epoch "
                "to the manager's modify() or initialize(), or call resolve_steps()"
            )

    def _check_shiftable(self) -> None:
        if self._start_step is not None or self._end_step is not None:
            raise ValueError(
                f"{type(self).__name__} starts or ends at a given step and cannot be shifted by "
                "epochs; give its schedule in epochs, or keep the original epochs"
            )

    def props(
        self, only_serializable: bool, format_str: bool = False, format_repr: bool = False
    ) -> dict[str, Any]:
        """As of every modifier; in recipes steps replace the epochs that are computed from them."""
        values: dict[str, Any] = super().props(only_serializable, format_str, format_repr)  # type: ignore[misc]
        if only_serializable:
            for field, twin in STEP_TWINS.items():
                if field in values:
                    values.pop(twin, None)
        return values
