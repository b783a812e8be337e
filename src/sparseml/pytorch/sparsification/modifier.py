"""The base classes of all PyTorch modifiers and their registration for recipes."""

from __future__ import annotations

from sparseml.pytorch.sparsification.modifier_base import (
    PYTORCH_FRAMEWORK,
    Loggers,
    Modifier,
    ModifierProp,
    PyTorchModifierYAML,
)
from sparseml.pytorch.sparsification.modifier_scheduled import (
    ScheduledModifier,
    ScheduledUpdateModifier,
)

__all__ = [
    "PYTORCH_FRAMEWORK",
    "Loggers",
    "Modifier",
    "ModifierProp",
    "PyTorchModifierYAML",
    "ScheduledModifier",
    "ScheduledUpdateModifier",
]
