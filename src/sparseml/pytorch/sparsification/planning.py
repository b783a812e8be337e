"""When a modifier will act and on what, asked of the modifier itself, without training anything."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from torch.nn import Module

from sparseml.optim.steps import epoch_of_step
from sparseml.pytorch.sparsification.modifier import ScheduledModifier
from sparseml.pytorch.utils.params import NamedLayerParam

__all__ = ["PlannedUpdate", "planned_sparsities", "planned_updates"]


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


def planned_sparsities(modifier: Any, module: Module) -> list[tuple[NamedLayerParam, float | None]]:
    """The parameters that a pruning modifier selects, each with the sparsity it shall end with.

    That is None where the modifier asks for none. Neither modifier nor module changes.

    :param modifier: a pruning modifier, initialised or not
    :param module: the model
    :raises RuntimeError: for an entry of ``params`` that matches nothing
    """
    probe = copy.copy(modifier)
    probe._initialized = False  # see above
    selected = probe._create_named_layers_and_params(module)
    asked = probe.get_applied_sparsity_for_epoch(math.inf, 1)
    if not isinstance(asked, (list, tuple)):
        asked = [asked] * len(selected)
    return list(zip(selected, asked, strict=True))
