"""Distillation from a teacher's hidden states."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.distillation import feature_mse, masked
from sparseml.pytorch.sparsification.distillation.hidden_states import PairedHiddenStates
from sparseml.pytorch.sparsification.distillation.modifier_distillation_base import (
    BaseDistillationModifier,
)
from sparseml.pytorch.sparsification.distillation.padding import real_tokens
from sparseml.pytorch.sparsification.fields import as_flag, between, declared_fields, field, fixed
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML


def _as_layer(name: str, value: Any) -> int:
    number = between()(name, value)
    if number != int(number):
        raise ValueError(f"{name} must be a whole number, found {value!r}")
    return int(number)


@PyTorchModifierYAML()
@declared_fields()
class HiddenStateDistillationModifier(BaseDistillationModifier):
    """Pulls a hidden state of the student to that of the teacher, for models of Hugging Face's.

    The loss becomes ``weight`` times the mean squared difference over all tokens, or that plus the
    loss of the task. Where it replaces the loss of the task, no gradient reaches pooler and head:
    the student keeps those of its dense model, which fit the teacher's hidden states (Chen et al.,
    "Knowledge distillation with the reused teacher classifier", 2022). Pruning by gradients has to
    leave these layers out. They stay as they are where gradients are reset to None, as
    ``zero_grad()`` does; zeros instead would let weight decay act on them.

    | Sample yaml:
    |   !HiddenStateDistillationModifier
    |       weight: 2.0
    |       layer: -1
    |       replace_task_loss: True

    :param weight: of the difference in the loss; at 0 the loss of the task is left as it is
    :param layer: which hidden state, counted as in ``hidden_states`` of the model's output: 0 is
        that behind the embeddings, -1 the last
    :param replace_task_loss: train by the difference alone
    :param mask_padding: leave out tokens that are padding, by the ``attention_mask`` of the
        student's inputs
    """

    weight: float = field(between(0.0), default=1.0)
    layer: int = field(_as_layer, default=-1)
    replace_task_loss: bool = field(as_flag, default=True)
    mask_padding: bool = field(as_flag, default=False)
    distill_output_keys: Any = fixed(None)

    def _set_up(self) -> None:
        self._features: PairedHiddenStates | None = None
        self._mask: Tensor | None = None

    def compute_distillation_loss(self, *outputs: Any, **named_outputs: Any) -> Tensor | float:
        """Return the mean squared difference of the hidden states, before it is weighted.

        :raises ValueError: for models without such a state, and for different shapes
        """
        if self._features is None:
            return 0.0
        student, teacher = self._features.take()
        if self._mask is not None:
            student, teacher = masked("the hidden state", self._mask, student, teacher)
        return feature_mse(student, teacher, normalize=False)

    def compute_total_loss(self, loss: Tensor, distillation_loss: Tensor | float) -> Tensor:
        """Return ``weight * distillation_loss``, to which the task's loss may be added."""
        if not isinstance(distillation_loss, Tensor):
            return loss
        weighted = self.weight * distillation_loss
        return weighted if self.replace_task_loss else loss + weighted

    def _attach(self, module: Module) -> None:
        self._detach()
        self._distillation_enabled &= self.weight > 0.0  # or the teacher would run for nothing
        if self._distillation_enabled:
            teacher = self._watchable_teacher(module)
            self._features = PairedHiddenStates(module, teacher, self.layer)

    def _look_at(self, module: Module, student_inputs: Any) -> None:
        self._mask = real_tokens(module, student_inputs) if self.mask_padding else None
