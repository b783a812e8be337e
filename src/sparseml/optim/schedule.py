"""When something starts, repeats and ends, as a value that may be asked about any moment.

Epochs are floats, progress within the epoch included. An optimizer step is known by the epoch at
which a training loop takes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

ONE_SHOT = math.inf
"""The epoch that asks a modifier to act at once, without training; as in SparseML 1.x."""

MOST_STEPS = 2_000_000
"""Beyond these a run takes too long to go through, step by step, by :meth:`Schedule.updates`."""

Reason = Literal["", "start", "update", "end"]
"""Why an update is due; empty where none is."""


def is_one_shot(epoch: float) -> bool:
    """Return whether an epoch is the one that asks for a one-shot application."""
    return math.isinf(epoch)


def epoch_of_step(step: int, steps_per_epoch: int) -> float:
    """Return the epoch at which a training loop takes its optimizer step ``step``, counted from 0.

    Every part of a run computes it in this way, so that equal steps give equal floats.
    """
    return step // steps_per_epoch + (step % steps_per_epoch) / steps_per_epoch


class PlannedUpdate(NamedTuple):
    """An optimizer step, counted from 0, before which an update is due."""

    step: int
    epoch: float
    starts: bool
    ends: bool


class Curve(Protocol):
    """A value that changes between a start and an end, such as a ``Ramp`` of sparsity."""

    def at(self, time: float, start: float, end: float) -> float:
        """Return the value at ``time``."""


@dataclass(frozen=True)
class Schedule:
    """When to start, how often to repeat, and when to end.

    What has started counts its intervals from the last update, so that a frequency that is no
    multiple of a step is in effect rounded up to one; ``update_steps`` is exact.

    .. code-block:: python

        schedule = Schedule(start=1.0, end=3.0, frequency=0.5)
        schedule.due(1.0, steps_per_epoch=4)  # "start"
        [update.epoch for update in schedule.updates(steps_per_epoch=4, steps=20)]
        # 1.0, 1.5, 2.0, 2.5, 3.0
        schedule.target(2.0, Ramp(0.05, 0.8))  # 0.703125

    :param start: the epoch to start at; -1 for the first opportunity
    :param end: the epoch to end at; -1 for never
    :param frequency: epochs between two updates; -1 for every step, None for start and end only
    :param start_step: in place of ``start``, an optimizer step, as ``end_step`` for ``end``
    :param update_steps: optimizer steps between two updates, in place of ``frequency``
    :param also: further epochs to update at, started or not
    """

    start: float = -1.0
    end: float = -1.0
    frequency: float | None = None
    start_step: int | None = None
    end_step: int | None = None
    update_steps: int | None = None
    also: tuple[float, ...] = ()

    def in_epochs(self, steps_per_epoch: int) -> Schedule:
        """Return the same schedule with start, end and frequency in epochs."""
        start, end, every = self.start_step, self.end_step, self.update_steps
        return replace(
            self,
            start=self.start if start is None else epoch_of_step(start, steps_per_epoch),
            end=self.end if end is None else epoch_of_step(end, steps_per_epoch),
            frequency=self.frequency if every is None else epoch_of_step(every, steps_per_epoch),
            start_step=None,
            end_step=None,
        )

    def due(
        self,
        epoch: float,
        steps_per_epoch: int,
        last_update: float = -1.0,
        started: bool = False,
        ended: bool = False,
    ) -> Reason:
        """Return why an update is due at ``epoch``; an empty, hence false, text if none is.

        :param epoch: infinity for a one-shot application, which needs no ``steps_per_epoch``
        :param last_update: the epoch of the last update, negative if there was none
        :param started: whether an update has started it, as ``ended`` whether one has ended it
        """
        if self.start_step is not None or self.end_step is not None:
            schedule = self.in_epochs(max(steps_per_epoch, 1))
            return schedule.due(epoch, steps_per_epoch, last_update, started, ended)
        if ended:
            return ""
        if not started:
            if self.start == -1.0 or epoch >= self.start >= 0.0:
                return "start"
        elif epoch >= self.end >= 0.0:
            return "end"
        elif epoch > self.start:
            if self.update_steps is not None:
                steps = round(epoch * steps_per_epoch) - round(last_update * steps_per_epoch)
                over = last_update >= 0.0 and steps >= self.update_steps
            elif self.frequency is None or self.frequency == -1.0:
                over = self.frequency is not None
            else:
                over = last_update >= 0.0 and epoch >= last_update + self.frequency
            if over:
                return "update"
        if self.also and any(last_update < further <= epoch for further in self.also):
            return "update"
        return ""

    def updates(self, steps_per_epoch: int, steps: int) -> Iterator[PlannedUpdate]:
        """Yield the updates of a training run, by the rule that training itself goes by.

        :param steps: the first step not to ask about
        """
        schedule = self.in_epochs(steps_per_epoch)
        last, started = -1.0, False
        for step in range(steps):
            epoch = epoch_of_step(step, steps_per_epoch)
            reason = schedule.due(epoch, steps_per_epoch, last, started)
            if not reason:
                continue
            last, started = epoch, started or reason == "start"
            # what starts at or after its end is over with this one update
            ends = started and schedule.due(epoch, steps_per_epoch, last, started) == "end"
            yield PlannedUpdate(step, epoch, reason == "start", ends)
            if ends:
                return

    def target(self, epoch: float, curve: Curve) -> float:
        """Return the value of a curve, such as the sparsity of a ``Ramp``, at ``epoch``.

        :raises ValueError: if start or end are given in steps; see :meth:`in_epochs`
        """
        if self.start_step is not None or self.end_step is not None:
            raise ValueError("start or end are given in steps: ask in_epochs(steps_per_epoch)")
        return curve.at(epoch, self.start, self.end)
