"""Managers: from a recipe to modifiers acting inside a training loop."""

from __future__ import annotations

from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.optim.optimizer import ScheduledOptimizer
from sparseml.pytorch.optim.step_wrapper import RecipeManagerStepWrapper
from sparseml.pytorch.sparsification.pruning.analyzer import ModulePruningAnalyzer

__all__ = [
    "ModulePruningAnalyzer",
    "RecipeManagerStepWrapper",
    "ScheduledModifierManager",
    "ScheduledOptimizer",
]
