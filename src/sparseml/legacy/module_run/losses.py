"""Losses and metrics as the module runners call them: batch and output in, named values out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseml.pytorch.functional.distillation import softened_divergence
from sparseml.pytorch.utils.tensors.nested import tensors_module_forward

__all__ = [
    "DEFAULT_LOSS_KEY",
    "TEACHER_LOSS_KEY",
    "Accuracy",
    "BinaryCrossEntropyLossWrapper",
    "CrossEntropyLossWrapper",
    "InceptionCrossEntropyLossWrapper",
    "KDLossWrapper",
    "KDSettings",
    "LossWrapper",
    "TopKAccuracy",
]

DEFAULT_LOSS_KEY = "__loss__"
TEACHER_LOSS_KEY = "__teacher_loss__"

_LossFn = Callable[[Any, Any], Tensor]


class LossWrapper:
    """Computes a loss and any number of metrics from a batch and the model's output for it.

    :param loss_fn: called as ``loss_fn(predictions, labels)``, returns a scalar tensor
    :param extras: metrics by name, called in the same way
    :param deconstruct_tensors: take the labels out of the batch (:meth:`get_labels`) and the
        predictions out of the output (:meth:`get_preds`); otherwise the functions get output and
        batch whole
    """

    def __init__(
        self,
        loss_fn: _LossFn,
        extras: Mapping[str, _LossFn] | None = None,
        deconstruct_tensors: bool = True,
    ):
        self._loss_fn = loss_fn
        self._extras = dict(extras or {})
        self._deconstruct_tensors = deconstruct_tensors

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._loss_fn!r}, extras={list(self._extras)})"

    @property
    def available_losses(self) -> tuple[str, ...]:
        """Names of the values that a call returns."""
        return (DEFAULT_LOSS_KEY, *self._extras)

    def __call__(self, data: Any, pred: Any) -> dict[str, Tensor]:
        """Return the loss under ``__loss__`` and each metric under its name.

        :param data: the batch
        :param pred: the model's output for it
        """
        return {
            DEFAULT_LOSS_KEY: self._call(self._loss_fn, data, pred, DEFAULT_LOSS_KEY),
            **{name: self._call(fn, data, pred, name) for name, fn in self._extras.items()},
        }

    def _call(self, function: _LossFn, data: Any, pred: Any, name: str) -> Tensor:
        if not self._deconstruct_tensors:
            return function(pred, data)
        return function(self.get_preds(data, pred, name), self.get_labels(data, pred, name))

    def get_inputs(self, data: Any, pred: Any, name: str) -> Any:
        """Return the features of a batch: the first element of an iterable, or all of it."""
        return _element(data, 0)

    def get_preds(self, data: Any, pred: Any, name: str) -> Any:
        """Return the predictions for the loss ``name``: the first element of an iterable."""
        return _element(pred, 0)

    def get_labels(self, data: Any, pred: Any, name: str) -> Any:
        """Return the labels for the loss ``name``: the last element of the batch.

        :raises TypeError: if the batch is a tensor or not iterable
        """
        if isinstance(data, Tensor) or not isinstance(data, Iterable):
            raise TypeError(
                "a batch with labels must be an iterable with the labels last, "
                f"found {type(data).__name__}"
            )
        return _element(data, -1)


def _element(values: Any, index: int) -> Any:
    if isinstance(values, Tensor) or not isinstance(values, Iterable):
        return values
    items = list(values.values()) if isinstance(values, Mapping) else list(values)
    return items[index]


class BinaryCrossEntropyLossWrapper(LossWrapper):
    """Binary cross entropy of logits."""

    def __init__(self, extras: Mapping[str, _LossFn] | None = None):
        super().__init__(F.binary_cross_entropy_with_logits, extras)


class CrossEntropyLossWrapper(LossWrapper):
    """Cross entropy of logits."""

    def __init__(self, extras: Mapping[str, _LossFn] | None = None):
        super().__init__(F.cross_entropy, extras)


class InceptionCrossEntropyLossWrapper(LossWrapper):
    """Cross entropy of the logits plus a weighted one of the auxiliary head's.

    The model returns logits and auxiliary logits as the first two elements of its output while
    training; of a single tensor (evaluation) only the first term is taken.

    :param aux_weight: weight of the auxiliary term
    """

    def __init__(self, extras: Mapping[str, _LossFn] | None = None, aux_weight: float = 0.4):
        super().__init__(self._with_aux, extras)
        self._aux_weight = aux_weight

    def get_preds(self, data: Any, pred: Any, name: str) -> Any:
        """Return all heads for the loss itself, the first for the metrics."""
        return pred if name == DEFAULT_LOSS_KEY else super().get_preds(data, pred, name)

    def _with_aux(self, preds: Any, labels: Tensor) -> Tensor:
        loss = F.cross_entropy(_element(preds, 0), labels)
        if isinstance(preds, Tensor) or len(preds) < 2:
            return loss
        return loss + self._aux_weight * F.cross_entropy(_element(preds, 1), labels)


@dataclass
class KDSettings:
    """How to distil.

    :param teacher: the model to learn from
    :param temp_student: temperature of the student's logits
    :param temp_teacher: temperature of the teacher's logits
    :param weight: weight of the distillation loss, that of the task being ``1 - weight``
    :param contradict_hinton: leave out the factor that keeps the gradient's size independent of
        the temperature
    """

    teacher: nn.Module
    temp_student: float = 5.0
    temp_teacher: float = 5.0
    weight: float = 0.5
    contradict_hinton: bool = False


class KDLossWrapper(LossWrapper):
    """A loss with knowledge distillation from a teacher (Hinton et al., 2015).

    The loss is ``weight * KD + (1 - weight) * loss``, where KD is that of
    :func:`~sparseml.pytorch.functional.distillation.softened_divergence`; KD alone is returned
    under ``__teacher_loss__``. Without ``kd_settings`` it is a plain :class:`LossWrapper`.
    """

    def __init__(
        self,
        loss_fn: _LossFn,
        extras: Mapping[str, _LossFn] | None = None,
        deconstruct_tensors: bool = True,
        kd_settings: KDSettings | None = None,
    ):
        super().__init__(loss_fn, extras, deconstruct_tensors)
        self._kd_settings = kd_settings

    @property
    def available_losses(self) -> tuple[str, ...]:
        """Names of the values that a call returns."""
        names = super().available_losses
        return names if self._kd_settings is None else (*names, TEACHER_LOSS_KEY)

    def __call__(self, data: Any, pred: Any) -> dict[str, Tensor]:
        """Return the total under ``__loss__``, the teacher's part, and each metric."""
        losses = super().__call__(data, pred)
        settings = self._kd_settings
        if settings is None:
            return losses
        settings.teacher.eval()
        with torch.no_grad():
            inputs = self.get_inputs(data, pred, TEACHER_LOSS_KEY)
            taught = tensors_module_forward(inputs, settings.teacher, check_feat_lab_inp=False)
        student = self.get_preds(data, pred, TEACHER_LOSS_KEY)
        teacher = self.get_preds(data, taught, TEACHER_LOSS_KEY)
        kd_loss = softened_divergence(
            student,
            teacher,
            settings.temp_student,
            settings.temp_teacher,
            same_size=not settings.contradict_hinton,
        )
        weight = settings.weight
        total = weight * kd_loss + (1.0 - weight) * losses[DEFAULT_LOSS_KEY]
        return {**losses, DEFAULT_LOSS_KEY: total, TEACHER_LOSS_KEY: kd_loss}


class Accuracy(nn.Module):
    """Percentage of binary predictions that are right, counted as 1 from 0.5 on."""

    @staticmethod
    def calculate(pred: Tensor, lab: Tensor) -> Tensor:
        """Return the percentage (0-d) for predictions and labels of one shape."""
        return ((pred >= 0.5) == (lab >= 0.5)).float().mean() * 100.0

    def forward(self, pred: Tensor, lab: Tensor) -> Tensor:
        return self.calculate(pred, lab)


class TopKAccuracy(nn.Module):
    """Percentage of samples whose label is among the ``topk`` highest predictions.

    :param topk: how many predictions count
    """

    def __init__(self, topk: int = 1):
        super().__init__()
        self._topk = topk

    @staticmethod
    def calculate(pred: Tensor, lab: Tensor, topk: int) -> Tensor:
        """Return the percentage (0-d).

        :param pred: scores, ``[batch, classes]``
        :param lab: indices of classes, ``[batch]``
        """
        best = pred.topk(topk, dim=1).indices
        return (best == lab.reshape(-1, 1)).any(dim=1).float().mean() * 100.0

    def forward(self, pred: Tensor, lab: Tensor) -> Tensor:
        return self.calculate(pred, lab, self._topk)
