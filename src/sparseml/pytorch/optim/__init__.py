"""Managers: from a recipe to modifiers acting inside a training loop; and analysis of models."""

from __future__ import annotations

from sparseml.pytorch.optim.analyzer_as import ASResultType, ModuleASAnalyzer
from sparseml.pytorch.optim.analyzer_module import ModuleAnalyzer
from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.optim.optimizer import ScheduledOptimizer
from sparseml.pytorch.optim.sensitivity_lr import (
    default_exponential_check_lrs,
    lr_loss_sensitivity,
)
from sparseml.pytorch.optim.sensitivity_pruning import (
    model_prunability_magnitude,
    pruning_loss_sens_magnitude,
    pruning_loss_sens_one_shot,
)
from sparseml.pytorch.optim.step_wrapper import RecipeManagerStepWrapper
from sparseml.pytorch.sparsification.pruning.analyzer import ModulePruningAnalyzer
from sparseml.pytorch.utils.layer_tracking import ASLayerTracker

__all__ = [
    "ASLayerTracker",
    "ASResultType",
    "ModuleASAnalyzer",
    "ModuleAnalyzer",
    "ModulePruningAnalyzer",
    "RecipeManagerStepWrapper",
    "ScheduledModifierManager",
    "ScheduledOptimizer",
    "default_exponential_check_lrs",
    "lr_loss_sensitivity",
    "model_prunability_magnitude",
    "pruning_loss_sens_magnitude",
    "pruning_loss_sens_one_shot",
]
