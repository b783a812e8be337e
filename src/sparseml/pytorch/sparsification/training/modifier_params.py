"""Old path: modifiers of parameters, each kind in a module of its own."""

from sparseml.pytorch.sparsification.training.modifier_param_values import (
    GradualParamModifier,
    SetParamModifier,
)
from sparseml.pytorch.sparsification.training.modifier_trainable import TrainableParamsModifier

__all__ = ["GradualParamModifier", "SetParamModifier", "TrainableParamsModifier"]
