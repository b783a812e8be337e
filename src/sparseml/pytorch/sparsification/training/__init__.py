"""Modifiers of the training itself: its length, learning rate, parameters and logging."""

from __future__ import annotations

from sparseml.pytorch.sparsification.training.modifier_epoch import EpochRangeModifier
from sparseml.pytorch.sparsification.training.modifier_logging import SparsificationLoggingModifier
from sparseml.pytorch.sparsification.training.modifier_lr import (
    LearningRateFunctionModifier,
    LearningRateModifier,
    SetLearningRateModifier,
)
from sparseml.pytorch.sparsification.training.modifier_params import (
    GradualParamModifier,
    SetParamModifier,
    TrainableParamsModifier,
)
from sparseml.pytorch.sparsification.training.modifier_regularizer import SetWeightDecayModifier

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
