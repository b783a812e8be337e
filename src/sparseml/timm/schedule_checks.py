"""What schedules do not do in a run, told before anything is computed."""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler_factory import scheduler_kwargs
from torch.optim import Optimizer

from sparseml.run.errors import RunError, one_line
from sparseml.timm.settings import TrainingSettings
from sparseml.timm.training_settings import ScheduleSettings

__all__ = ["make_scheduler", "schedule_findings"]

_REACHED = 0.9


def make_scheduler(
    settings: TrainingSettings, inner: Optimizer, epochs: int, steps_per_epoch: int
) -> tuple[Any, int]:
    """Return timm's scheduler, and the epochs of the run with what the schedule adds to them.

    :raises RunError: for settings that timm refuses
    """
    schedule = settings.schedule
    chosen = scheduler_kwargs(Namespace(**vars(schedule), seed=settings.run.seed))
    try:
        scheduler, epochs = create_scheduler_v2(
            inner, **{**chosen, "num_epochs": epochs}, updates_per_epoch=steps_per_epoch
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise RunError(f"--sched {schedule.sched}: {one_line(error)}") from error
    return scheduler, int(epochs)


def schedule_findings(
    settings: TrainingSettings, manager: Any, epochs: int, steps_per_epoch: int, recipe: str
) -> Iterator[str]:
    """Yield, in a line each, what is asked for but does not come, or comes otherwise.

    :param epochs: of the recipe where that sets the rate, else those asked for
    """
    chosen, lr = settings.schedule, settings.schedule.lr or 0.0
    if manager.epoch_modifiers and 0 < manager.max_epochs < epochs:
        yield f"{recipe} is made for {manager.max_epochs} epochs, this run has {epochs}"
    starts = [float(modifier.start_epoch) for modifier in manager.learning_rate_modifiers]
    if starts:
        names = {entry.name for entry in fields(ScheduleSettings)} & settings.given - {"epochs"}
        if names and min(starts) <= 0:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(names))
            yield f"{flags}: without effect, as {recipe} sets the learning rate"
        return
    if chosen.min_lr > lr:
        yield f"--min-lr {chosen.min_lr:g} is above --lr {lr:g}: the rate rises towards the end"
    rates = _rates(settings, epochs, steps_per_epoch)
    run = f"in a run of {len(rates)} epochs"
    if max(rates) < _REACHED * lr:
        yield (
            f"--lr {lr:g} is never reached {run}, the highest rate is {max(rates):.3g}: give fewer "
            f"than --warmup-epochs {chosen.warmup_epochs}, or more --epochs"
        )
    elif 2 * chosen.warmup_epochs > len(rates) and chosen.sched != "none":
        yield f"--warmup-epochs {chosen.warmup_epochs} take most of the time {run}"
    beyond: dict[str, tuple[str, list[float]]] = {
        "step": ("decay-epochs", [chosen.decay_epochs]),
        "plateau": ("patience-epochs", [chosen.patience_epochs]),
        "multistep": ("decay-milestones", list(chosen.decay_milestones)),
    }
    flag, moments = beyond.get(chosen.sched, ("", []))
    late = [f"{moment:g}" for moment in moments if moment >= len(rates)]
    if late:
        fewer = "the rate never falls" if len(late) == len(moments) else "it falls less often"
        yield f"--{flag} {' '.join(late)}: not reached {run}, so {fewer}"


def _rates(settings: TrainingSettings, epochs: int, steps_per_epoch: int) -> list[float]:
    """Return the learning rate in each epoch, of a scheduler that is gone through for nothing."""
    optimizer = torch.optim.SGD([torch.zeros(1)], settings.schedule.lr or 0.0)
    rates = []
    with warnings.catch_warnings():  # which come again, with the scheduler of the run
        warnings.simplefilter("ignore")
        scheduler, epochs = make_scheduler(settings, optimizer, epochs, steps_per_epoch)
    for epoch in range(1, epochs + 1):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        if scheduler is not None:
            scheduler.step(epoch, 0.0)
            scheduler.step_update(epoch * steps_per_epoch)
    return rates
