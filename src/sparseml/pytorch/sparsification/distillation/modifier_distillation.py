"""Distillation from a teacher's outputs."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.distillation import kldiv_loss
from sparseml.pytorch.sparsification.distillation.modifier_distillation_base import (
    BaseDistillationModifier,
)
from sparseml.pytorch.sparsification.distillation.padding import real_tokens
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    between,
    declared_fields,
    field,
    new_field,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML


@PyTorchModifierYAML()
@declared_fields()
class DistillationModifier(BaseDistillationModifier):
    """Pulls the student's predictions to the teacher's.

    The loss becomes ``(1 - hardness) * loss + hardness * D``, where D is the divergence of the
    predictions at a temperature, averaged over the outputs (Hinton et al., "Distilling the
    knowledge in a neural network", 2015).

    | Sample yaml:
    |   !DistillationModifier
    |       start_epoch: 0.0
    |       hardness: 0.5
    |       temperature: 2.0
    |       distill_output_keys: [0]

    :param hardness: share of the teacher in the loss, from 0 to 1
    :param temperature: what logits are divided by; above 0
    :param mask_padding: of predictions for each token, leave out those for padding, by the
        ``attention_mask`` of the student's inputs
    :raises ValueError: for a hardness or temperature out of range
    """

    hardness: float = field(between(0.0, 1.0), default=0.5)
    temperature: float = field(between(above=0.0), default=2.0)
    mask_padding: bool = new_field(as_flag, default=False)

    def _set_up(self) -> None:
        self._mask: Tensor | None = None

    def _look_at(self, module: Module, student_inputs: Any) -> None:
        self._mask = real_tokens(module, student_inputs) if self.mask_padding else None

    def compute_distillation_loss(
        self,
        optimizer: Any = None,
        student_outputs: Any = None,
        teacher_outputs: Any = None,
        student_labels: Any = None,
        teacher_labels: Any = None,
    ) -> Tensor | float:
        """Return the mean divergence over the outputs; 0.0 without outputs.

        :raises ValueError: naming the output, where student and teacher do not fit
        """
        keys = self.distill_output_keys
        return kldiv_loss(student_outputs, teacher_outputs, self.temperature, keys, mask=self._mask)

    def compute_total_loss(self, loss: Tensor, distillation_loss: Tensor | float) -> Tensor:
        """Return ``(1 - hardness) * loss + hardness * distillation_loss``."""
        return (1.0 - self.hardness) * loss + self.hardness * distillation_loss
