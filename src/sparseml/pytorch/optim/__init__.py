"""Managers: from a recipe to modifiers acting inside a training loop; and analysis of models."""

from __future__ import annotations

from sparseml.pytorch.optim.analyzer_as import ASResultType, ModuleASAnalyzer
from sparseml.pytorch.optim.analyzer_module import ModuleAnalyzer
from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.optim.mask_creator_pruning import (
    BlockPruningMaskCreator,
    DimensionSparsityMaskCreator,
    FourBlockMaskCreator,
    GroupedPruningMaskCreator,
    PruningMaskCreator,
    UnstructuredPruningMaskCreator,
    load_mask_creator,
)
from sparseml.pytorch.optim.mask_pruning import (
    AVALIABLE_SCORER_CLASSES,
    MagnitudePruningParamsScorer,
    ModuleParamPruningMask,
    MovementPruningParamsScorer,
    create_pruning_param_scorer,
)
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
from sparseml.pytorch.optim.step_driver import Position, StepDriver
from sparseml.pytorch.optim.step_wrapper import RecipeManagerStepWrapper
from sparseml.pytorch.sparsification.pruning.analyzer import ModulePruningAnalyzer
from sparseml.pytorch.utils.layer_tracking import ASLayerTracker

__all__ = [
    "AVALIABLE_SCORER_CLASSES",
    "ASLayerTracker",
    "ASResultType",
    "BlockPruningMaskCreator",
    "DimensionSparsityMaskCreator",
    "FourBlockMaskCreator",
    "GroupedPruningMaskCreator",
    "MagnitudePruningParamsScorer",
    "ModuleASAnalyzer",
    "ModuleAnalyzer",
    "ModuleParamPruningMask",
    "ModulePruningAnalyzer",
    "MovementPruningParamsScorer",
    "Position",
    "PruningMaskCreator",
    "RecipeManagerStepWrapper",
    "ScheduledModifierManager",
    "ScheduledOptimizer",
    "StepDriver",
    "UnstructuredPruningMaskCreator",
    "create_pruning_param_scorer",
    "default_exponential_check_lrs",
    "load_mask_creator",
    "lr_loss_sensitivity",
    "model_prunability_magnitude",
    "pruning_loss_sens_magnitude",
    "pruning_loss_sens_one_shot",
]
