"""When a recipe prunes, and to what sparsity."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from sparseml.optim.schedule import MOST_STEPS
from sparseml.pytorch.sparsification.modifier import ScheduledModifier
from sparseml.pytorch.sparsification.planning import Prunes, asked_sparsities
from sparseml.report.schema import PruningSchedule, Schedule, ScheduledUpdate

# beyond these a schedule takes too much room to show
_MOST_UPDATES = 500


def asked_schedule(manager: Any, steps_per_epoch: int) -> Schedule:
    """Return the sparsity that each pruning modifier of a recipe asks for, update by update.

    Of more than 500 updates of a modifier every second, third, ... is returned, and the last.

    :param manager: whose schedules in steps are resolved, if there are any
    :param steps_per_epoch: optimizer steps in an epoch
    :return: no modifiers if the recipe takes more than two million steps
    """
    steps = max(1, manager.max_epochs) * steps_per_epoch
    schedule = Schedule(steps_per_epoch=steps_per_epoch)
    if steps > MOST_STEPS:
        return schedule
    for stage, modifier in manager.iter_staged_modifiers():
        if not (isinstance(modifier, ScheduledModifier) and isinstance(modifier, Prunes)):
            continue
        updates = list(_updates(modifier, steps_per_epoch, steps))
        if updates:
            name = type(modifier).__name__
            found = PruningSchedule(modifier=name, stage=stage, updates=_thinned(updates))
            schedule.modifiers.append(found)
    return schedule


def _updates(modifier: Any, steps_per_epoch: int, steps: int) -> Iterator[ScheduledUpdate]:
    for update in modifier.schedule.updates(steps_per_epoch, steps + 1):
        asked = asked_sparsities(modifier, update.epoch, steps_per_epoch)
        values = [value for value in asked if value is not None]
        if not values:
            continue
        yield ScheduledUpdate(
            step=update.step, epoch=update.epoch, lowest=min(values), highest=max(values)
        )


def _thinned(updates: list[ScheduledUpdate]) -> list[ScheduledUpdate]:
    every = -(-len(updates) // _MOST_UPDATES)
    kept = list(islice(updates, 0, None, every))
    return kept if kept[-1] is updates[-1] else [*kept, updates[-1]]
