"""Modifiers: what to do to a model while it trains, and when."""

from __future__ import annotations

from sparseml.pytorch.sparsification.info import sparsification_info
from sparseml.pytorch.sparsification.modifier import (
    PYTORCH_FRAMEWORK,
    Modifier,
    ModifierProp,
    PyTorchModifierYAML,
    ScheduledModifier,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.quantization import QuantizationModifier
from sparseml.pytorch.sparsification.training import (
    EpochRangeModifier,
    GradualParamModifier,
    LearningRateFunctionModifier,
    LearningRateModifier,
    SetLearningRateModifier,
    SetParamModifier,
    SetWeightDecayModifier,
    SparsificationLoggingModifier,
    TrainableParamsModifier,
)

__all__ = [
    "PYTORCH_FRAMEWORK",
    "EpochRangeModifier",
    "GradualParamModifier",
    "LearningRateFunctionModifier",
    "LearningRateModifier",
    "Modifier",
    "ModifierProp",
    "PyTorchModifierYAML",
    "QuantizationModifier",
    "ScheduledModifier",
    "ScheduledUpdateModifier",
    "SetLearningRateModifier",
    "SetParamModifier",
    "SetWeightDecayModifier",
    "SparsificationLoggingModifier",
    "TrainableParamsModifier",
    "sparsification_info",
]
