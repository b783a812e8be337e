"""Modifiers that start, end and repeat at given epochs."""

from __future__ import annotations

import math
import operator
from typing import Any

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.props import ModifierProp
from sparseml.optim.schedule import epoch_of_step, is_one_shot
from sparseml.optim.steps import STEP_TWINS, StepsMeta
from sparseml.utils.text import shortened
from sparseml.utils.written_number import as_written

_BOUNDS = ("start_epoch", "end_epoch")


def _as_epochs(modifier: Any, field: str, value: Any) -> Any:
    """Return a number of epochs as it was given: recipes show whole numbers as such."""
    owner, found = type(modifier).__name__, shortened(value)
    problem = f"{field} of {owner} must be a number of epochs, found {found}"
    if isinstance(value, bool):
        raise TypeError(problem)
    try:
        return as_written(value)
    except TypeError:
        raise TypeError(problem) from None
    except (ValueError, OverflowError):
        raise ValueError(problem) from None


def _in_epochs(name: str, what: str) -> Any:
    def keep(modifier: Any, value: Any) -> None:
        setattr(modifier, f"_{name}", _as_epochs(modifier, name, value))
        (modifier.validate_schedule if name in _BOUNDS else modifier.validate_update)()

    return ModifierProp(func_get=operator.attrgetter(f"_{name}"), func_set=keep, doc=what)


def _in_steps(attribute: str, what: str) -> ModifierProp:
    doc = f"{what}, in place of its twin in epochs."
    return ModifierProp(func_get=operator.attrgetter(attribute), doc=doc)


class BaseScheduled(BaseModifier, metaclass=StepsMeta):
    """A modifier that starts and ends at given epochs.

    Whatever it takes in epochs may be given in optimizer steps instead, ``start_step``,
    ``end_step`` and, if it repeats, ``update_steps``: the metaclass sees to it.

    :param start_epoch: the epoch to start at; -1 for immediately
    :param min_start: the least value allowed for ``start_epoch``
    :param end_epoch: the epoch to end at; -1 for never
    :param min_end: the least value allowed for ``end_epoch``
    :param end_comparator: what ``end_epoch`` must be: None for what it was at construction, -1 for
        -1 or at least ``start_epoch``, 0 for at least ``start_epoch``, 1 for more than
        ``start_epoch``
    :raises ValueError: if the epochs break these rules
    """

    _start_step: int | None = None
    _end_step: int | None = None
    _update_steps: int | None = None
    _steps_resolved = True
    _update_frequency: Any = None  # epochs, of what repeats

    def __init__(
        self,
        start_epoch: float = -1.0,
        min_start: float = -1.0,
        end_epoch: float = -1.0,
        min_end: float = -1.0,
        end_comparator: int | None = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._start_epoch = self._init_start = float(_as_epochs(self, "start_epoch", start_epoch))
        self._min_start = float(min_start)
        self._end_epoch = self._init_end = float(_as_epochs(self, "end_epoch", end_epoch))
        self._min_end = float(min_end)
        self._end_comparator = end_comparator
        self.validate_schedule()

    start_epoch = _in_epochs("start_epoch", "The epoch to start at; -1 for immediately.")
    end_epoch = _in_epochs("end_epoch", "The epoch to end at; -1 for never.")
    start_step = _in_steps("_start_step", "The optimizer step to start at")
    end_step = _in_steps("_end_step", "The optimizer step to end at")
    update_steps = _in_steps("_update_steps", "Optimizer steps between updates")

    @property
    def has_steps(self) -> bool:
        """Whether any part of the schedule is given in steps."""
        return any(getattr(self, field) is not None for field in STEP_TWINS)

    @property
    def steps_resolved(self) -> bool:
        """Whether the epochs are the real ones; True if nothing is given in steps."""
        return self._steps_resolved

    def check_whole(self) -> None:
        """Check what only all fields together tell; called when they are set, steps among them."""

    def resolve_steps(self, steps_per_epoch: int) -> None:
        """Compute the epochs of what is given in steps. Calling it again changes nothing.

        :raises ValueError: if it is no positive whole number, or the schedule does not hold with it
        """
        if not self.has_steps:
            return
        if not isinstance(steps_per_epoch, int) or steps_per_epoch < 1:
            found = repr(steps_per_epoch)
            raise ValueError(f"steps_per_epoch must be a positive whole number, found {found}")
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

    def check_steps_resolved(self, epoch: float = 0.0) -> None:
        """Check, before the schedule is used, that its epochs are the real ones.

        :param epoch: the current epoch; a one-shot application needs no schedule
        :raises RuntimeError: if the steps have not been resolved and there is need for them
        """
        if not self._steps_resolved and not is_one_shot(epoch):
            raise RuntimeError(
                f"the schedule of {type(self).__name__} is given in steps: give steps_per_epoch "
                "to the manager's modify() or initialize(), or call resolve_steps()"
            )

    def validate_schedule(self) -> None:
        """Check start and end against each other and their limits, or raise a ValueError."""
        name, start, end = type(self).__name__, self._start_epoch, self._end_epoch
        least = (self._min_start, self._min_end)
        for field, epoch, low in zip(_BOUNDS, (start, end), least, strict=True):
            if not epoch >= low:
                raise ValueError(f"{field} of {name} must be at least {low}, found {epoch}")
            if math.isinf(epoch):
                raise ValueError(f"{field} of {name} must be finite, found {epoch}")
        if self._end_comparator is None and end != self._init_end:
            raise ValueError(f"end_epoch of {name} must stay {self._init_end}, found {end}")
        rules: dict[int | None, tuple[str, bool]] = {
            -1: ("-1 or at least", end == -1 or end >= start),
            0: ("at least", end >= start),
            1: ("greater than", end > start),
        }
        rule, kept = rules.get(self._end_comparator, ("", True))
        if not kept:
            raise ValueError(
                f"end_epoch of {name} must be {rule} start_epoch, "
                f"found start_epoch {start} and end_epoch {end}"
            )

    def advance_epochs(self, ref_start_epoch: float | None = None) -> None:
        """Shift the schedule, as when the modifier joins a longer recipe.

        :param ref_start_epoch: epochs to add; None changes nothing
        :raises ValueError: if start or end are given in steps, which know no epoch
        """
        if ref_start_epoch is None:
            return
        if self._start_step is not None or self._end_step is not None:
            raise ValueError(
                f"{type(self).__name__} starts or ends at a given step and cannot be shifted by "
                "epochs; give its schedule in epochs, or keep the original epochs"
            )
        self._start_epoch = max(0.0, self._start_epoch) + ref_start_epoch
        if self._end_epoch != -1:
            self._end_epoch += ref_start_epoch
            self._init_end += ref_start_epoch
        self.validate_schedule()

    def props(
        self, only_serializable: bool, format_str: bool = False, format_repr: bool = False
    ) -> dict[str, Any]:
        """Return the properties; in recipes steps replace the epochs computed from them."""
        values = super().props(only_serializable, format_str, format_repr)
        if only_serializable:
            for field, twin in STEP_TWINS.items():
                if field in values:
                    values.pop(twin, None)
        return values


class BaseUpdate(BaseModifier):
    """A modifier that repeats.

    :param update_frequency: epochs between updates; -1 for every step
    :param min_frequency: the least value allowed for ``update_frequency``
    :raises ValueError: if it is less
    """

    def __init__(self, update_frequency: float, min_frequency: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._update_frequency = _as_epochs(self, "update_frequency", update_frequency)
        self._min_frequency = float(min_frequency)
        self.validate_update()

    update_frequency = _in_epochs("update_frequency", "Epochs between updates; -1: every step.")

    def validate_update(self) -> None:
        """Check that ``update_frequency`` is at least its limit, or raise a ValueError."""
        if not self._update_frequency >= self._min_frequency:
            raise ValueError(
                f"update_frequency of {type(self).__name__} must be at least "
                f"{self._min_frequency}, found {self._update_frequency}"
            )
        if math.isinf(self._update_frequency):
            raise ValueError(f"update_frequency of {type(self).__name__} must be finite, found inf")
