"""Sparsification without a framework: kinds, descriptions, base modifiers, recipe builders."""

from __future__ import annotations

from sparseml.lazy import lazy_names
from sparseml.sparsification.types import SparsificationTypes

_MOVED = {
    "sparseml.legacy.frameworks.info": (
        "ModifierInfo ModifierPropInfo ModifierType SparsificationInfo "
        "load_sparsification_info save_sparsification_info sparsification_info"
    ),
    "sparseml.legacy.recipes.builder": "ModifierYAMLBuilder RecipeYAMLBuilder to_yaml_str",
    "sparseml.legacy.recipes.modifiers": (
        "ConstantPruningModifier EpochRangeModifier GMPruningModifier LearningRateModifier "
        "SetLearningRateModifier TrainableParamsModifier"
    ),
}
__all__ = ["SparsificationTypes"]
__all__ += " ".join(_MOVED.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _MOVED)
