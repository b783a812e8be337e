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

    Subclasses override :meth:`forward`, or how it finds predictions and labels
    (:meth:`get_preds`, :meth:`get_labels`); these raise a TypeError for what is neither a tensor
    nor an iterable that holds something.

    :param loss_fn: called as ``loss_fn(predictions, labels)``, returns a scalar tensor
    :param extras: metrics by name, called in the same way
    :param deconstruct_tensors: take the predictions out of the output (:meth:`get_preds`);
        otherwise the functions get the output whole. Labels are taken out of the batch in any case
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
        extras = ",".join(map(_name_of, self._extras.values()))
        return f"{type(self).__name__}(Loss: {_name_of(self._loss_fn)}; Extras: {extras})"

    @property
    def available_losses(self) -> tuple[str, ...]:
        """Names of the values that a call returns."""
        return (DEFAULT_LOSS_KEY, *self._extras)

    def __call__(self, data: Any, pred: Any) -> dict[str, Tensor]:
        return self.forward(data, pred)

    def forward(self, data: Any, pred: Any) -> dict[str, Tensor]:
        """Return the loss of a batch and its output as ``__loss__``, each metric by its name."""
        functions = {DEFAULT_LOSS_KEY: self._loss_fn, **self._extras}
        return {
            name: function(self.get_preds(data, pred, name), self.get_labels(data, pred, name))
            for name, function in functions.items()
        }

    def get_inputs(self, data: Any, pred: Any, name: str) -> Any:
        """Return the features of a batch: the first element of an iterable, or the tensor."""
        return _element(data, 0, "a batch")

    def get_preds(self, data: Any, pred: Any, name: str) -> Any:
        """Return the first element of an output, all of it without ``deconstruct_tensors``."""
        return _element(pred, 0, "an output") if self._deconstruct_tensors else pred

    def get_labels(self, data: Any, pred: Any, name: str) -> Any:
        """Return the last element of a batch; a TypeError for a tensor, too."""
        if isinstance(data, Tensor):
            raise TypeError("a batch must be an iterable with the labels last, found a Tensor")
        return _element(data, -1, "a batch")


def _element(values: Any, index: int, what: str) -> Any:
    if isinstance(values, Tensor):
        return values
    if not isinstance(values, Iterable):
        raise TypeError(f"{what} must be a tensor or an iterable, found {type(values).__name__}")
    items = list(values.values()) if isinstance(values, Mapping) else list(values)
    if not items:
        raise TypeError(f"{what} must hold something, found an empty {type(values).__name__}")
    return items[index]


def _name_of(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


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

    While training, the model returns ``(auxiliary logits, logits, ...)``, in this order, or an
    object with the fields ``logits`` and ``aux_logits`` (torchvision's Inception; for GoogLeNet's
    two heads, ``aux_logits1`` and ``aux_logits2``, the terms are added up). Of a single tensor
    (evaluation) only the first term is taken.

    :param extras: further metrics of the logits; ``cross_entropy``, the first term, is always one
    :param aux_weight: weight of the auxiliary term
    """

    def __init__(self, extras: Mapping[str, _LossFn] | None = None, aux_weight: float = 0.4):
        super().__init__(self.loss, {**(extras or {}), "cross_entropy": F.cross_entropy})
        self._aux_weight = aux_weight

    def get_preds(self, data: Any, pred: Any, name: str) -> Any:
        """Return all heads for the loss itself, the logits for the metrics."""
        return pred if name == DEFAULT_LOSS_KEY else _heads(pred)[0]

    def loss(self, preds: Any, labels: Tensor) -> Tensor:
        """Return the loss (0-d) for heads ``[batch, classes]`` and class indices ``[batch]``."""
        logits, auxiliary = _heads(preds)
        loss = F.cross_entropy(logits, labels)
        for head in auxiliary:
            loss = loss + self._aux_weight * F.cross_entropy(head, labels)
        return loss


def _heads(preds: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the logits and the auxiliary heads' of an output."""
    if isinstance(preds, Tensor):
        return preds, []
    fields = preds if isinstance(preds, Mapping) else getattr(preds, "_asdict", dict)()
    if "logits" in fields:
        found = [fields[name] for name in fields if name.startswith("aux_logits")]
        return fields["logits"], [head for head in found if head is not None]
    heads = list(preds.values() if isinstance(preds, Mapping) else preds)
    return (heads[1], heads[:1]) if len(heads) > 1 else (_element(heads, 0, "an output"), [])


@dataclass(frozen=True, eq=False)
class KDSettings:
    """How to distil from a teacher, with temperatures of both models' logits; read-only.

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
    :func:`~sparseml.pytorch.functional.distillation.softened_divergence` with the classes in
    dimension 1. The teacher is called with what :meth:`get_inputs` finds in the batch, and its
    output goes through :meth:`get_preds` like the student's, both under the name
    ``__teacher_loss__``. Without ``kd_settings`` it is a plain :class:`LossWrapper`.
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

    def forward(self, data: Any, pred: Any) -> dict[str, Tensor]:
        """Return the total under ``__loss__`` and each metric under its name."""
        losses = super().forward(data, pred)
        settings = self._kd_settings
        if settings is None:
            return losses
        settings.teacher.eval()
        with torch.no_grad():
            inputs = self.get_inputs(data, pred, TEACHER_LOSS_KEY)
            taught = tensors_module_forward(inputs, settings.teacher)
        kd_loss = softened_divergence(
            self.get_preds(data, pred, TEACHER_LOSS_KEY),
            self.get_preds(data, taught, TEACHER_LOSS_KEY),
            settings.temp_student,
            settings.temp_teacher,
            same_size=not settings.contradict_hinton,
            dim=1,
        )
        weight = settings.weight
        total = weight * kd_loss + (1.0 - weight) * losses[DEFAULT_LOSS_KEY]
        return losses | {DEFAULT_LOSS_KEY: total}


class Accuracy(nn.Module):
    """Percentage of binary predictions that are right, counted as 1 from 0.5 on."""

    @staticmethod
    def calculate(pred: Tensor, lab: Tensor) -> Tensor:
        """Return the percentage (0-d) for predictions and labels of one shape."""
        return ((pred >= 0.5) == (lab >= 0.5)).float().mean() * 100.0

    forward = calculate


class TopKAccuracy(nn.Module):
    """Percentage of samples whose label is among the ``topk`` highest predictions."""

    def __init__(self, topk: int = 1):
        super().__init__()
        self._topk = topk

    @staticmethod
    @torch.no_grad()
    def calculate(pred: Tensor, lab: Tensor, topk: int) -> Tensor:
        """Return the percentage, ``[1]``, for scores ``[batch, classes]``, labels ``[batch]``."""
        best = pred.topk(topk, dim=1).indices
        return (best == lab.reshape(-1, 1)).any(dim=1).float().mean(0, keepdim=True) * 100.0

    def forward(self, pred: Tensor, lab: Tensor) -> Tensor:
        return self.calculate(pred, lab, self._topk)
