"""Putting a training run together: optimizer, schedule and what it will not do, manager, loss."""

from __future__ import annotations

import logging
import warnings
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler_factory import scheduler_kwargs
from torch.optim import Optimizer

from sparseml.run.errors import RunError, one_line
from sparseml.run.fitting import (
    attaching,
    epochs_to_run,
    load_recipe,
    require_fitting_patterns,
    require_fitting_schedule,
)
from sparseml.run.loop import steps_in_epoch
from sparseml.run.precision import gradient_scaler
from sparseml.run.sam import SharpnessAware
from sparseml.run.session import LogStep
from sparseml.timm.models import load_model
from sparseml.timm.session import ImageSession
from sparseml.timm.settings import ExtraSettings, TrainingSettings
from sparseml.timm.training import Distillation, ImageTraining, MaskedEma

_LOGGER = logging.getLogger(__name__)

_HIGH = 0.01  # of the rate of an optimizer that scales each weight's step
_REACHED = 0.9


def set_up_training(
    session: ImageSession, settings: TrainingSettings, loggers: list[Any], log: LogStep
) -> ImageTraining:
    """Check that recipe, model and run fit, and build all that training takes.

    :param loggers: for the modifiers
    :param log: for the loop
    :raises RunError: for what does not fit, before anything is computed
    """
    where, run = session.where, settings.run
    recipe, schedule, batches = run.sparseml_recipe, settings.schedule, settings.optimizer
    manager = load_recipe(recipe, run.recipe_args, run.effort)
    require_fitting_patterns(manager, session.model, recipe)
    loader = session.training_loader(batches.batch_size)
    steps = steps_in_epoch(len(loader), batches.grad_accum_steps)
    manager.resolve_steps(steps)
    epochs = epochs_to_run(manager, schedule.epochs, "epochs" in settings.given, recipe)
    if batches.sync_bn and where.several:
        session.model = convert_sync_batchnorm(session.model)
    ema, extras = None, settings.extras
    if extras.model_ema:
        decay, warmup = extras.model_ema_decay, extras.model_ema_warmup
        ema = MaskedEma(session.model, decay=decay, use_warmup=warmup)
    distillation = _distillation(session, extras)
    inner = _optimizer(session, settings)
    if where.is_first:
        for line in schedule_findings(settings, manager, epochs, steps, recipe):
            _LOGGER.warning("%s", line)
    scheduler = None
    if not manager.learning_rate_modifiers:
        scheduler, epochs = make_scheduler(settings, inner, epochs, steps)
    require_fitting_schedule(manager, steps, epochs, recipe)
    model, scaler = where.share(session.model), gradient_scaler(run, where)
    lent: dict[str, Any] = {"loggers": loggers, "grad_sampler": session.grad_sampler()}
    if distillation is not None:
        lent["distillation_teacher"] = distillation.teacher
    with attaching(recipe):
        optimizer = manager.modify(model, inner, steps, wrap_optim=scaler, **lent)
    return ImageTraining(
        session,
        settings,
        loader,
        epochs,
        steps,
        model,
        manager,
        optimizer,
        inner,
        scaler=optimizer if scaler is not None else None,
        scheduler=scheduler,
        # a modifier of the recipe does the same, by its own settings
        distillation=None if manager.distillation_modifiers else distillation,
        sam=_sharpness(extras),
        ema=ema,
        log=log,
    )


def learning_rate(settings: TrainingSettings, processes: int) -> float:
    """Return ``--lr``, or what follows from the size of a batch in all processes."""
    chosen, schedule = settings.optimizer, settings.schedule
    if schedule.lr is not None:
        return schedule.lr
    ratio = chosen.batch_size * processes * chosen.grad_accum_steps / schedule.lr_base_size
    scale = schedule.lr_base_scale or ("sqrt" if _adaptive(chosen.opt) else "linear")
    return schedule.lr_base * (ratio**0.5 if scale == "sqrt" else ratio)


def _adaptive(optimizer: str) -> bool:
    return any(part in optimizer.lower() for part in ("ada", "lamb"))  # as timm has it


def _optimizer(session: ImageSession, settings: TrainingSettings) -> torch.optim.Optimizer:
    chosen, schedule = settings.optimizer, settings.schedule
    schedule.lr = learning_rate(settings, session.where.count)
    try:
        keywords = optimizer_kwargs(Namespace(**vars(chosen), lr=schedule.lr))
        return create_optimizer_v2(session.model, **keywords)
    except (AssertionError, TypeError, ValueError) as error:
        raise RunError(f"--opt {chosen.opt}: {one_line(error)}") from error


def _sharpness(extras: ExtraSettings) -> SharpnessAware | None:
    if not extras.sam:
        return None
    try:
        return SharpnessAware(
            extras.sam_rho, extras.sam_adaptive, extras.sam_topk, extras.sam_global_sparsity
        )
    except ValueError as error:
        raise RunError(f"--sam: {error}") from error


def _distillation(session: ImageSession, extras: ExtraSettings) -> Distillation | None:
    if not extras.teacher:
        return None
    teacher = load_model(
        extras.teacher,
        extras.teacher_checkpoint,
        kwargs={"num_classes": session.classes},
        flags=("--teacher", "--teacher-checkpoint"),
    ).to(session.where.device)
    return Distillation(teacher, extras.distill_weight, extras.distill_temperature)


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
        flags = settings.flags_given("schedule", "epochs")
        if flags and min(starts) <= 0:
            yield f"{flags}: without effect, as {recipe} sets the learning rate"
        return
    if _adaptive(settings.optimizer.opt) and lr > _HIGH:
        yield (
            f"--lr {lr:g} is high for --opt {settings.optimizer.opt}, which usually takes 0.001 or "
            f"less (without --lr it follows from --lr-base {chosen.lr_base:g}, which suits sgd)"
        )
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
