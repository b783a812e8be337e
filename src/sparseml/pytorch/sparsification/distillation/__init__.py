"""Modifiers that let a model learn from another one."""

from __future__ import annotations

from sparseml.pytorch.sparsification.distillation.hidden_group import DISTILL_PARAM_GROUP_KEY
from sparseml.pytorch.sparsification.distillation.modifier_distillation import DistillationModifier
from sparseml.pytorch.sparsification.distillation.modifier_distillation_base import (
    BaseDistillationModifier,
)
from sparseml.pytorch.sparsification.distillation.modifier_hidden_state import (
    HiddenStateDistillationModifier,
)
from sparseml.pytorch.sparsification.distillation.modifier_per_layer import (
    PerLayerDistillationModifier,
)

__all__ = [
    "DISTILL_PARAM_GROUP_KEY",
    "BaseDistillationModifier",
    "DistillationModifier",
    "HiddenStateDistillationModifier",
    "PerLayerDistillationModifier",
]
