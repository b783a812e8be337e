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

__all__ = [
    "PYTORCH_FRAMEWORK",
    "Modifier",
    "ModifierProp",
    "PyTorchModifierYAML",
    "ScheduledModifier",
    "ScheduledUpdateModifier",
    "sparsification_info",
]
