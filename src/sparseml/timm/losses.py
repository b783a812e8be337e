"""What training minimises: cross entropy, with mixed images, smoothed labels, and a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from sparseml.pytorch.functional.distillation import softened_divergence
from sparseml.run.errors import RunError
from sparseml.timm.settings import AugmentationSettings

__all__ = ["Distillation", "make_mixup", "training_loss"]


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
