"""When a modifier will act, asked of the modifier itself, without training anything."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import NamedTuple

from sparseml.optim.steps import epoch_of_step
from sparseml.pytorch.sparsification.modifier import ScheduledModifier

__all__ = ["PlannedUpdate", "planned_updates"]


class PlannedUpdate(NamedTuple):
    """An optimizer step before which a modifier updates."""

    step: int
    epoch: float
    starts: bool
    ends: bool


def planned_updates(
    modifier: ScheduledModifier, steps_per_epoch: int, steps: int
) -> Iterator[PlannedUpdate]:
    """Yield the updates that a modifier would make in a run of ``steps`` optimizer steps.

    A stand-in for the modifier is asked before every step whether an update is due, and told that
    it took place. The modifier itself does not change.

    :param modifier: initialised or not; steps it is scheduled by must be resolved
    :param steps_per_epoch: optimizer steps in an epoch
    :param steps: the first step not to ask about
    """
    probe = copy.copy(modifier)
    # A modifier that is deleted while initialised detaches itself from its model.
    try:
        vars(probe).update(_initialized=True, _started=False, _ended=False, _last_update_epoch=-1.0)
        for step in range(steps):
            epoch = epoch_of_step(step, steps_per_epoch)
            if not probe.update_ready(epoch, steps_per_epoch):
                continue
            starts = probe.start_pending(epoch, steps_per_epoch)
            probe._started = probe._started or starts
            ends = probe.end_pending(epoch, steps_per_epoch)
            vars(probe).update(_ended=ends, _last_update_epoch=epoch)
            yield PlannedUpdate(step, epoch, starts, ends)
    finally:
        probe._initialized = False
