"""Putting a training run together: optimizer, schedule, manager, loss, averages."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2, optimizer_kwargs

from sparseml.run.errors import RunError, one_line
from sparseml.run.fitting import (
    epochs_to_run,
    load_recipe,
    require_fitting_patterns,
    require_fitting_schedule,
)
from sparseml.run.sam import SharpnessAware
from sparseml.run.session import LogStep
from sparseml.timm.ema import MaskedEma
from sparseml.timm.losses import Distillation
from sparseml.timm.models import load_model
from sparseml.timm.schedule_checks import make_scheduler, schedule_findings
from sparseml.timm.session import ImageSession, half_type
from sparseml.timm.settings import TrainingSettings
from sparseml.timm.training import ImageTraining, steps_in_epoch
from sparseml.timm.training_settings import ExtraSettings

__all__ = ["learning_rate", "set_up_training"]

_LOGGER = logging.getLogger(__name__)


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
    manager = load_recipe(recipe, run.recipe_args)
    require_fitting_patterns(manager, session.model, recipe)
    loader = _training_loader(session, settings)
    steps = steps_in_epoch(len(loader), batches.grad_accum_steps)
    manager.resolve_steps(steps)
    epochs = epochs_to_run(manager, schedule.epochs, "epochs" in settings.given, recipe)
    if batches.sync_bn and where.several:
        session.model = convert_sync_batchnorm(session.model)
    ema = _averaged(session, settings.extras)
    distillation = _distillation(session, settings.extras)
    inner = _optimizer(session, settings)
    if where.is_first:
        for line in schedule_findings(settings, manager, epochs, steps, recipe):
            _LOGGER.warning("%s", line)
    scheduler = None
    if not manager.learning_rate_modifiers:
        scheduler, epochs = make_scheduler(settings, inner, epochs, steps)
    require_fitting_schedule(manager, steps, epochs, recipe)
    model, scaler = where.share(session.model), _scaler(session)
    lent: dict[str, Any] = {"loggers": loggers, "grad_sampler": session.grad_sampler()}
    if distillation is not None:
        lent["distillation_teacher"] = distillation.teacher
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
        sam=_sharpness(settings.extras),
        ema=ema,
        log=log,
    )


def _training_loader(session: ImageSession, settings: TrainingSettings) -> Any:
    return session.source.loader(
        session.training_data,
        settings.optimizer.batch_size,
        session.where,
        training=True,
        **settings.augmentation.loader_keywords(session.where.several),
    )


def learning_rate(settings: TrainingSettings, processes: int) -> float:
    """Return ``--lr``, or what follows from the size of a batch in all processes."""
    chosen, schedule = settings.optimizer, settings.schedule
    if schedule.lr is not None:
        return schedule.lr
    ratio = chosen.batch_size * processes * chosen.grad_accum_steps / schedule.lr_base_size
    adaptive = any(part in chosen.opt.lower() for part in ("ada", "lamb"))  # as timm has it
    scale = schedule.lr_base_scale or ("sqrt" if adaptive else "linear")
    return schedule.lr_base * (ratio**0.5 if scale == "sqrt" else ratio)


def _optimizer(session: ImageSession, settings: TrainingSettings) -> torch.optim.Optimizer:
    chosen, schedule = settings.optimizer, settings.schedule
    schedule.lr = learning_rate(settings, session.where.count)
    try:
        keywords = optimizer_kwargs(Namespace(**vars(chosen), lr=schedule.lr))
        return create_optimizer_v2(session.model, **keywords)
    except (AssertionError, TypeError, ValueError) as error:
        raise RunError(f"--opt {chosen.opt}: {one_line(error)}") from error


def _scaler(session: ImageSession) -> Any:
    if not session.run.amp or half_type(session.run, session.where) != "float16":
        return None
    return torch.amp.GradScaler(session.where.device.type)


def _averaged(session: ImageSession, extras: ExtraSettings) -> MaskedEma | None:
    if not extras.model_ema:
        return None
    decay, warmup = extras.model_ema_decay, extras.model_ema_warmup
    return MaskedEma(session.model, decay=decay, use_warmup=warmup)


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
