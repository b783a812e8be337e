"""The training loop: AdamW, driven step by step by a manager that prunes and distils."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from sparseml.pytorch.optim import StepDriver
from sparseml.pytorch.sparsification.distillation.teacher import needing_teacher
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.tensors.nested import tensors_on
from sparseml.run.errors import RunError
from sparseml.run.fitting import (
    attaching,
    epochs_to_run,
    load_recipe,
    require_fitting_patterns,
    require_fitting_schedule,
)
from sparseml.run.loop import EpochLoop, steps_in_epoch
from sparseml.run.precision import autocast_of, gradient_scaler
from sparseml.run.session import Found, LogStep
from sparseml.transformers.data.classifier import load_classifier
from sparseml.transformers.inputs import Batch, LabelledTexts
from sparseml.transformers.loss import Heads
from sparseml.transformers.models import load_causal, load_config, model_folder, quiet
from sparseml.transformers.session import TextSession
from sparseml.transformers.settings import OptimizerSettings, TrainingSettings

_LOGGER = logging.getLogger(__name__)
_EPOCHS = 3
_SELF = "self"


@dataclass
class TextTraining(EpochLoop):
    """Trains a model epoch by epoch.

    :param loader: yields batches of texts
    :param model: as it is trained, in its wrappers if there are any
    :param scaler: of gradients in float16, if they need one
    :param scheduler: of the learning rate, None where the recipe sets it
    :param log: told of every ``--log-interval``-th step: its number and what to log
    """

    UNIT = "texts"

    session: TextSession
    settings: TrainingSettings
    loader: Any
    epochs: int
    steps_per_epoch: int
    model: nn.Module
    manager: Any
    driver: StepDriver
    optimizer: AdamW
    scaler: torch.amp.GradScaler | None
    scheduler: Any
    log: LogStep

    averaged: nn.Module | None = None

    @property
    def stepping(self) -> AdamW:
        """Return the optimizer."""
        return self.optimizer

    @property
    def steps(self) -> int:
        """Return how many steps were taken; those that a gradient scaler left out are none."""
        return self.driver.position.steps

    @property
    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the model."""
        parts = {"optimizer": self.optimizer, "manager": self.manager}
        return {**parts, "scheduler": self.scheduler, "scaler": self.scaler}

    def after_epoch(self, number: int, found: Found) -> None:
        """Go on: the learning rate changes at every step."""

    def skip_to(self, epoch: int, found: Found) -> None:
        """Go to the learning rate of an epoch, in a run whose optimizer begins anew."""
        if self.scheduler is None:
            return
        self.scheduler.last_epoch = steps = epoch * self.steps_per_epoch
        factors = zip(self.scheduler.base_lrs, self.scheduler.lr_lambdas, strict=True)
        for group, (rate, factor) in zip(self.optimizer.param_groups, factors, strict=True):
            group["lr"] = rate * factor(steps)

    def step(self, group: list[Batch]) -> float:
        """Take one optimizer step on a group of batches, and return their mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(group)
        before, clip = self.steps, self.settings.optimizer.clip_grad
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if clip:
            clip_grad_norm_(self.model.parameters(), clip)
        self.driver.before_step()
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.driver.after_step()
        if self.scheduler is not None and self.steps > before:
            self.scheduler.step()
        return loss

    def _on_device(self, batch: Batch) -> Batch:
        inputs, labels = batch
        device = self.session.where.device
        return tensors_on(inputs, device), labels.to(device)

    def _loss(self, inputs: dict[str, Tensor], labels: Tensor) -> Tensor:
        with autocast_of(self.session.run, self.session.where)():
            output = self.model(**inputs)
            loss = self.session.inputs.loss(output, labels)
        return self.driver.loss_update(
            loss, student_outputs=Heads(output), student_inputs=inputs, student_labels=labels
        )


def set_up_training(
    session: TextSession, settings: TrainingSettings, loggers: list[Any], log: LogStep
) -> TextTraining:
    """Check that recipe, model and run fit, and build all that training takes.

    :param loggers: for the modifiers
    :param log: for the loop
    :raises RunError: for what does not fit, before anything is computed
    """
    where, run, recipe = session.where, settings.run, settings.run.sparseml_recipe
    chosen, schedule = settings.optimizer, settings.schedule
    manager = load_recipe(recipe, run.recipe_args, run.effort)
    require_fitting_patterns(manager, session.model, recipe)
    loader = session.training_loader(chosen.batch_size)
    steps = steps_in_epoch(len(loader), chosen.grad_accum_steps)
    manager.resolve_steps(steps)
    usual = None if manager.max_epochs > 0 else _EPOCHS
    asked = usual if schedule.epochs is None else schedule.epochs
    epochs = epochs_to_run(manager, asked, "epochs" in settings.given, recipe)
    require_fitting_schedule(manager, steps, epochs, recipe)
    lent: dict[str, Any] = {"grad_sampler": session.grad_sampler(), "steps_per_epoch": steps}
    teacher = _teacher(session, settings, manager)
    if teacher is not None:
        lent["distillation_teacher"] = teacher
    freeze_unreached(session.model, manager, session.sample_inputs())
    optimizer = decaying_adamw(session.model, schedule.lr, chosen)
    scheduler = _scheduler(settings, optimizer, manager, epochs * steps, steps)
    model = where.share(session.model)
    with attaching(recipe):
        manager.initialize(model, loggers=loggers, **lent)
    driver = StepDriver(model, optimizer, manager, steps, compared=True)
    return TextTraining(
        session,
        settings,
        loader,
        epochs,
        steps,
        model,
        manager,
        driver,
        optimizer,
        gradient_scaler(run, where),
        scheduler,
        log,
    )


def freeze_unreached(model: Any, manager: Any, inputs: dict[str, Tensor]) -> None:
    """Freeze what gets no gradient in a run whose loss is a distance between hidden states.

    That is the head, and what is above the layer that is compared. Processes that share a model
    wait for the gradients of all that is not frozen.

    :param manager: of the recipe
    :param inputs: a batch, as keywords for the model
    """
    layers = [
        one.layer
        for one in manager.distillation_modifiers
        if getattr(one, "replace_task_loss", False)
        and one.weight > 0
        and one.start_epoch <= 0 > one.end_epoch
    ]
    if not layers or not hasattr(model, "base_model"):
        return
    with evaluating(model), torch.enable_grad():  # which draws no random numbers
        states = model.base_model(**inputs, output_hidden_states=True).hidden_states
        sum(states[layer].sum() for layer in layers).backward()
    for param in model.parameters():
        param.requires_grad_(param.requires_grad and param.grad is not None)
    model.zero_grad(set_to_none=True)


def decaying_adamw(model: nn.Module, rate: float, chosen: OptimizerSettings) -> AdamW:
    """Return AdamW, which decays all weights but biases and those of norms."""
    params = [param for param in model.parameters() if param.requires_grad]
    groups = [
        {"params": [one for one in params if one.ndim > 1], "weight_decay": chosen.weight_decay},
        {"params": [one for one in params if one.ndim < 2], "weight_decay": 0.0},
    ]
    first, second = chosen.opt_betas
    return AdamW(groups, lr=rate, betas=(first, second), eps=chosen.opt_eps)


def _scheduler(
    settings: TrainingSettings, optimizer: AdamW, manager: Any, steps: int, per_epoch: int
) -> Any:
    """Return the schedule of the learning rate; None where the recipe sets it."""
    schedule = settings.schedule
    if manager.learning_rate_modifiers:
        if flags := settings.flags_given("schedule", "epochs"):
            recipe = settings.run.sparseml_recipe
            _LOGGER.warning("%s: without effect, as %s sets the learning rate", flags, recipe)
        return None
    warmup = round(schedule.warmup_epochs * per_epoch)
    if warmup >= steps:
        raise RunError(
            f"--warmup-epochs {schedule.warmup_epochs:g} take the whole run of {steps} steps"
        )
    name = "constant_with_warmup" if schedule.sched == "constant" else schedule.sched
    return transformers.get_scheduler(name, optimizer, warmup, steps)


def _teacher(session: TextSession, settings: TrainingSettings, manager: Any) -> Any:
    """Return the teacher of the recipe's distillation, on the device of the model."""
    given, recipe = settings.teacher.teacher, settings.run.sparseml_recipe
    if given is None:
        if needing_teacher(manager):
            raise RunError(f"{recipe} distils from a teacher: give --teacher hf:DIR, or self")
        return None
    if not manager.distillation_modifiers:
        raise RunError(f"--teacher {given}: {recipe} has no modifier that distils from it")
    if given == _SELF:
        return _SELF
    folder, inputs = model_folder(given, "--teacher"), session.inputs
    with quiet():
        if isinstance(inputs, LabelledTexts):
            found = load_classifier(str(folder), inputs.task, "--teacher")
            same = found.order == inputs.order
        else:
            found = load_causal(folder, load_config(folder, "--teacher"), f"--teacher {given}")
            same = True
    if found.tokenizer.get_vocab() != session.tokenizer.get_vocab() or not same:
        what = "other tokens" if same else "its classes in another order"
        raise RunError(f"--teacher {given} has {what} than --model {session.model_name}")
    if found.fresh:
        _LOGGER.warning("--teacher %s was not trained for this: its head is random", given)
    return found.model.float().to(session.where.device).eval().requires_grad_(False)
