"""Putting a training run together: optimizer, schedule, manager, loss, averages."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import convert_sync_batchnorm
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler_factory import scheduler_kwargs
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.run.errors import RunError, one_line
from sparseml.run.fitting import (
    epochs_to_run,
    load_recipe,
    require_fitting_patterns,
    require_fitting_schedule,
)
from sparseml.run.sam import SharpnessAware
from sparseml.timm.ema import MaskedEma
from sparseml.timm.losses import Distillation, make_mixup, training_loss
from sparseml.timm.models import load_model
from sparseml.timm.session import Session, autocast_of
from sparseml.timm.training import Trainer, steps_in_epoch

__all__ = ["Training", "set_up_training"]


@dataclass
class Training:
    """A run that is ready to begin."""

    session: Session
    trainer: Trainer
    loader: Any
    epochs: int
    steps_per_epoch: int


def set_up_training(
    session: Session,
    given: set[str],
    loggers: list[Any],
    log: Callable[[int, dict[str, float]], None],
) -> Training:
    """Check that recipe, model and run fit, and build all that training takes.

    :param given: names of the arguments that were given on the command line
    :param loggers: for the modifiers
    :param log: for the loop
    :raises RunError: for what does not fit, before anything is computed
    """
    args, where = session.args, session.where
    manager = load_recipe(args.sparseml_recipe, args.recipe_args)
    require_fitting_patterns(manager, session.model, args.sparseml_recipe)
    loader = _training_loader(session)
    steps = steps_in_epoch(len(loader), args.grad_accum_steps)
    manager.resolve_steps(steps)
    epochs = epochs_to_run(manager, args.epochs, "epochs" in given, args.sparseml_recipe)
    if args.sync_bn and where.several:
        session.model = convert_sync_batchnorm(session.model)
    ema = _averaged(session)
    distillation = _distillation(session)
    inner = _optimizer(session)
    scheduler = None
    if not manager.learning_rate_modifiers:
        scheduler, epochs = _scheduler(args, inner, epochs, steps)
    require_fitting_schedule(manager, steps, epochs, args.sparseml_recipe)
    model, scaler = where.share(session.model), _scaler(session)
    optimizer = _driven(session, manager, model, inner, scaler, steps, loggers, distillation)
    mixup = make_mixup(args, session.classes)
    trainer = Trainer(
        args,
        where,
        model,
        manager,
        optimizer,
        inner,
        training_loss(args, mixup is not None).to(where.device),
        autocast_of(args, where),
        scaler=optimizer if scaler is not None else None,
        scheduler=scheduler,
        mixup=mixup,
        # a modifier of the recipe does the same, by its own settings
        distillation=None if manager.distillation_modifiers else distillation,
        sam=_sharpness(args),
        ema=ema,
        log=log,
    )
    return Training(session, trainer, loader, epochs, steps)


def _driven(
    session: Session,
    manager: ScheduledModifierManager,
    model: nn.Module,
    inner: torch.optim.Optimizer,
    scaler: Any,
    steps: int,
    loggers: list[Any],
    distillation: Distillation | None,
) -> Any:
    teacher: dict[str, Any] = {}
    if distillation is not None:
        teacher["distillation_teacher"] = distillation.teacher
    return manager.modify(
        model,
        inner,
        steps_per_epoch=steps,
        wrap_optim=scaler,
        loggers=loggers,
        grad_sampler=session.grad_sampler(),
        **teacher,
    )


def _training_loader(session: Session) -> Any:
    args = session.args
    interpolation = {"interpolation": args.train_interpolation} if args.train_interpolation else {}
    return session.source.loader(
        session.training_data,
        args.batch_size,
        session.where,
        training=True,
        no_aug=args.no_aug,
        auto_augment=args.aa,
        num_aug_repeats=args.aug_repeats if session.where.several else 0,
        scale=args.scale,
        ratio=args.ratio,
        hflip=args.hflip,
        vflip=args.vflip,
        color_jitter=args.color_jitter,
        re_prob=args.reprob,
        re_mode=args.remode,
        re_count=args.recount,
        train_crop_mode=args.train_crop_mode,
        **interpolation,
    )


def _optimizer(session: Session) -> torch.optim.Optimizer:
    args = session.args
    if args.lr is None:
        size = args.batch_size * session.where.count * args.grad_accum_steps
        args.lr = args.lr_base * size / args.lr_base_size
    try:
        return create_optimizer_v2(session.model, **optimizer_kwargs(args))
    except (AssertionError, TypeError, ValueError) as error:
        raise RunError(f"--opt {args.opt}: {one_line(error)}") from error


def _scheduler(
    args: Namespace, inner: torch.optim.Optimizer, epochs: int, steps: int
) -> tuple[Any, int]:
    settings = {**scheduler_kwargs(args), "num_epochs": epochs}
    try:
        scheduler, epochs = create_scheduler_v2(inner, **settings, updates_per_epoch=steps)
    except (AssertionError, TypeError, ValueError) as error:
        raise RunError(f"--sched {args.sched}: {one_line(error)}") from error
    return scheduler, int(epochs)


def _scaler(session: Session) -> Any:
    kind = session.where.device.type
    half = session.args.amp_dtype or ("float16" if kind == "cuda" else "bfloat16")
    return torch.amp.GradScaler(kind) if session.args.amp and half == "float16" else None


def _averaged(session: Session) -> MaskedEma | None:
    args = session.args
    if not args.model_ema:
        return None
    return MaskedEma(session.model, decay=args.model_ema_decay, use_warmup=args.model_ema_warmup)


def _sharpness(args: Namespace) -> SharpnessAware | None:
    if not args.sam:
        return None
    try:
        return SharpnessAware(
            args.sam_rho, args.sam_adaptive, args.sam_topk, args.sam_global_sparsity
        )
    except ValueError as error:
        raise RunError(f"--sam: {error}") from error


def _distillation(session: Session) -> Distillation | None:
    args = session.args
    if not args.teacher:
        if args.teacher_checkpoint:
            raise RunError(f"--teacher-checkpoint {args.teacher_checkpoint} needs --teacher MODEL")
        return None
    teacher = load_model(
        args.teacher,
        args.teacher_checkpoint,
        kwargs={"num_classes": session.classes},
        flags=("--teacher", "--teacher-checkpoint"),
    )
    return Distillation(
        teacher.to(session.where.device), args.distill_weight, args.distill_temperature
    )
