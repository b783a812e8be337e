"""Managers: from a recipe to modifiers acting inside a training loop; and analysis of models."""

from __future__ import annotations

from sparseml.lazy import lazy_names
from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.optim.optimizer import ScheduledOptimizer
from sparseml.pytorch.optim.step_driver import Position, StepDriver
from sparseml.pytorch.optim.step_wrapper import RecipeManagerStepWrapper
from sparseml.pytorch.optim.summary import PruningSummary, RunSummary
from sparseml.pytorch.utils.layer_tracking import ASLayerTracker

_MOVED = {
    "sparseml.legacy.analysis.activations": "ASResultType ModuleASAnalyzer",
    "sparseml.legacy.analysis.model": "ModuleAnalyzer",
    "sparseml.legacy.masks.creators": (
        "BlockPruningMaskCreator DimensionSparsityMaskCreator FourBlockMaskCreator "
        "GroupedPruningMaskCreator PruningMaskCreator UnstructuredPruningMaskCreator "
        "load_mask_creator"
    ),
    "sparseml.legacy.masks.scorers": (
        "AVALIABLE_SCORER_CLASSES MagnitudePruningParamsScorer ModuleParamPruningMask "
        "MovementPruningParamsScorer PruningParamsScorer create_pruning_param_scorer"
    ),
    "sparseml.legacy.pruning.analyzer": "ModulePruningAnalyzer",
    "sparseml.legacy.sensitivity.boosting": "LayerBoostResults ModuleASOneShootBooster",
    "sparseml.legacy.sensitivity.pruning": (
        "default_exponential_check_lrs lr_loss_sensitivity model_prunability_magnitude "
        "pruning_loss_sens_magnitude pruning_loss_sens_one_shot"
    ),
}
__all__ = [
    "ASLayerTracker",
    "Position",
    "PruningSummary",
    "RecipeManagerStepWrapper",
    "RunSummary",
    "ScheduledModifierManager",
    "ScheduledOptimizer",
    "StepDriver",
]
__all__ += " ".join(_MOVED.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _MOVED)
