"""The training loop: timm's parts, with a manager that prunes at every optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.utils import ModelEmaV3, dispatch_clip_grad
from torch import Tensor, nn

from sparseml.pytorch.functional.distillation import softened_divergence
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.run.batch_norm import frozen_statistics
from sparseml.run.errors import RunError
from sparseml.run.loop import EpochLoop
from sparseml.run.masks import masks_in_force
from sparseml.run.precision import autocast_of
from sparseml.run.sam import SharpnessAware
from sparseml.run.session import Found, LogStep
from sparseml.timm.session import ImageSession
from sparseml.timm.settings import AugmentationSettings, TrainingSettings

_Group = list[tuple[Tensor, Tensor]]


@dataclass
class ImageTraining(EpochLoop):
    """Trains a model epoch by epoch.

    :param optimizer: what ``manager.modify`` returned
    :param inner: the optimizer itself
    :param scaler: the gradient scaler inside ``optimizer``, if any
    :param scheduler: of timm, None where the recipe sets the learning rate
    :param log: told of every ``--log-interval``-th step: its number and what to log
    """

    UNIT = "images"
    ADVICE = " or clip gradients (--clip-grad)"

    session: ImageSession
    settings: TrainingSettings
    loader: Any
    epochs: int
    steps_per_epoch: int
    model: nn.Module
    manager: Any
    optimizer: Any
    inner: torch.optim.Optimizer
    scaler: Any
    scheduler: Any
    distillation: Distillation | None
    sam: SharpnessAware | None
    ema: MaskedEma | None
    log: LogStep

    def __post_init__(self) -> None:
        session, chosen = self.session, self.settings.augmentation
        self.where, self.autocast = session.where, autocast_of(session.run, session.where)
        self.mixup = make_mixup(chosen, self.settings.optimizer.batch_size, session.classes)
        self.loss = training_loss(chosen, self.mixup is not None).to(self.where.device)

    @property
    def stepping(self) -> torch.optim.Optimizer:
        """Return the optimizer itself."""
        return self.inner

    @property
    def steps(self) -> int:
        """Return how many steps were taken; those that a gradient scaler left out are none."""
        return int(self.optimizer.wrapped_steps)

    @property
    def averaged(self) -> nn.Module | None:
        """Return the model with averaged weights, if there is one."""
        return None if self.ema is None else self.ema.module

    @property
    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the model."""
        parts = {"optimizer": self.inner, "manager": self.manager}
        return {**parts, "scheduler": self.scheduler, "scaler": self.scaler}

    def epoch(self, number: int, name: str) -> Found:
        """Train one epoch."""
        found = super().epoch(number, name)
        if self.settings.optimizer.dist_bn:
            self.where.average_buffers(unwrap_module(self.model))
        return found

    def after_epoch(self, number: int, found: dict[str, float]) -> None:
        """Go on to the learning rate of the next epoch."""
        if self.scheduler is not None:
            self.scheduler.step(number + 1, found["top1"])

    def skip_to(self, epoch: int, found: dict[str, float]) -> None:
        """Go to the learning rate of an epoch, in a run whose optimizer begins anew."""
        if self.scheduler is not None:
            self.scheduler.step(epoch, found["top1"])
            self.scheduler.step_update(self.steps)

    def step(self, group: _Group) -> float:
        """Take one optimizer step on a group of batches, and return their mean loss."""
        self.inner.zero_grad(set_to_none=True)
        loss = self._backward(group)
        if self.sam is not None:
            with frozen_statistics(self.model):
                params = (p for entry in self.inner.param_groups for p in entry["params"])
                self.sam.replace_gradients(params, lambda: self._backward(group))
        chosen = self.settings.optimizer
        if chosen.clip_grad is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.inner)
            held = [param for param in self.model.parameters() if param.grad is not None]
            dispatch_clip_grad(held, value=chosen.clip_grad, mode=chosen.clip_mode)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.optimizer.step(self.inner)
            self.optimizer.update()
        if self.ema is not None:
            self.ema.update_masked(self.model, self.manager, self.steps)
        if self.scheduler is not None:
            self.scheduler.step_update(num_updates=self.steps)
        return loss

    def _begin_epoch(self, number: int) -> None:
        super()._begin_epoch(number)
        off = self.settings.augmentation.mixup_off_epoch
        if self.mixup is not None and off and number >= off:
            self.mixup.mixup_enabled = False

    def _on_device(self, batch: Any) -> tuple[Tensor, Tensor]:
        images, labels = batch[:2]
        images = images.to(self.where.device, non_blocking=True)
        labels = labels.to(self.where.device, non_blocking=True)
        if self.session.run.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.mixup(images, labels) if self.mixup is not None else (images, labels)

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.autocast():
            logits = self.model(images)
            loss = self.loss(logits, labels)
        if self.distillation is not None:
            loss = self.distillation(loss, images, logits, self.autocast)
        return self.manager.loss_update(
            loss,
            self.model,
            self.inner,
            self.optimizer.wrapped_epoch,
            self.optimizer.wrapped_steps_per_epoch,
            student_outputs=logits,
            student_inputs=images,
            student_labels=labels,
        )


class MaskedEma(ModelEmaV3):
    """A moving average of the weights that is zero where the weights are masked.

    A plain average would hold on to weights that were pruned, and would not be sparse.
    """

    @torch.no_grad()
    def update_masked(self, model: nn.Module, manager: Any, step: int) -> None:
        """Average in the present weights, then mask.

        :param model: with or without wrappers around it
        :param step: optimizer steps so far, for the warm-up of the decay
        """
        self.update(unwrap_module(model), step=step)
        params = dict(self.module.named_parameters())
        for name, mask in masks_in_force(manager).items():
            params[name].mul_(mask.to(params[name].device, params[name].dtype))


def make_mixup(settings: AugmentationSettings, batch_size: int, classes: int) -> Mixup | None:
    """Return timm's mixing of images, as far as settings ask for it.

    :raises RunError: for an odd batch size, whose images cannot be paired, and for bounds of
        cutmix that no size of a box can lie between
    """
    if not (settings.mixup > 0 or settings.cutmix > 0 or settings.cutmix_minmax):
        return None
    if batch_size % 2:
        raise RunError(
            f"--batch-size {batch_size}: mixup and cutmix pair images; give an even number"
        )
    low, high = settings.cutmix_minmax or (0.0, 1.0)
    if not 0 <= low < high <= 1:
        raise RunError(f"--cutmix-minmax must rise from 0 to 1, found {low} {high}")
    return Mixup(
        settings.mixup,
        settings.cutmix,
        settings.cutmix_minmax,
        settings.mixup_prob,
        settings.mixup_switch_prob,
        settings.mixup_mode,
        label_smoothing=settings.smoothing,
        num_classes=classes,
    )


def training_loss(settings: AugmentationSettings, mixes: bool) -> nn.Module:
    """Return the loss for logits ``[batch, classes]``.

    :param mixes: whether labels come as probabilities, from :func:`make_mixup`
    """
    if settings.bce_loss:
        smoothing = 0.0 if mixes else settings.smoothing
        return BinaryCrossEntropy(smoothing=smoothing, target_threshold=settings.bce_target_thresh)
    if mixes:
        return SoftTargetCrossEntropy()  # mixup has smoothed the labels
    if settings.smoothing:
        return LabelSmoothingCrossEntropy(smoothing=settings.smoothing)
    return nn.CrossEntropyLoss()


class Distillation:
    """Mixes into the loss how far the student's predictions are from a teacher's.

    :param teacher: gives logits for the same classes; it is put into eval mode, and not trained
    """

    def __init__(self, teacher: nn.Module, weight: float, temperature: float) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self._weight, self._temperature = weight, temperature

    def __call__(
        self, loss: Tensor, images: Tensor, logits: Tensor, autocast: Callable[[], Any]
    ) -> Tensor:
        """Return ``(1 - weight)`` of ``loss`` and ``weight`` of the distance from the teacher."""
        with torch.no_grad(), autocast():
            taught = self.teacher(images)
        if taught.shape != logits.shape:
            raise RunError(
                f"--teacher gives logits of shape {tuple(taught.shape)}, "
                f"the model of shape {tuple(logits.shape)}"
            )
        temperature = self._temperature
        far = softened_divergence(logits.float(), taught.float(), temperature, temperature)
        return (1 - self._weight) * loss + self._weight * far
