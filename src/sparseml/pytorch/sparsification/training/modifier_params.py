"""Freezing parameters and setting them to values."""

from __future__ import annotations

from sparseml.pytorch.sparsification.training.modifier_param_values import (
    GradualParamModifier,
    SetParamModifier,
)
from sparseml.pytorch.sparsification.training.modifier_trainable import TrainableParamsModifier

__all__ = ["GradualParamModifier", "SetParamModifier", "TrainableParamsModifier"]
