"""Modifiers of the training itself: its length, learning rate, parameters and logging."""

from __future__ import annotations

from sparseml.pytorch.sparsification.training.modifier_logging import (
    EpochRangeModifier,
    SparsificationLoggingModifier,
)
from sparseml.pytorch.sparsification.training.modifier_lr import (
    LearningRateFunctionModifier,
    LearningRateModifier,
    SetLearningRateModifier,
)
from sparseml.pytorch.sparsification.training.modifier_param_values import (
    GradualParamModifier,
    SetParamModifier,
)
from sparseml.pytorch.sparsification.training.modifier_regularizer import SetWeightDecayModifier
from sparseml.pytorch.sparsification.training.modifier_trainable import TrainableParamsModifier

__all__ = [
    "EpochRangeModifier",
    "GradualParamModifier",
    "LearningRateFunctionModifier",
    "LearningRateModifier",
    "SetLearningRateModifier",
    "SetParamModifier",
    "SetWeightDecayModifier",
    "SparsificationLoggingModifier",
    "TrainableParamsModifier",
]
