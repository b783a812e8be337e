"""Sparsification without a framework: kinds, descriptions, base modifiers, recipe builders."""

from __future__ import annotations

import importlib
from typing import Any

from sparseml.sparsification.types import SparsificationTypes

__all__ = [
    "ConstantPruningModifier",
    "EpochRangeModifier",
    "GMPruningModifier",
    "LearningRateModifier",
    "ModifierInfo",
    "ModifierPropInfo",
    "ModifierType",
    "ModifierYAMLBuilder",
    "RecipeYAMLBuilder",
    "SetLearningRateModifier",
    "SparsificationInfo",
    "SparsificationTypes",
    "TrainableParamsModifier",
    "load_sparsification_info",
    "save_sparsification_info",
    "sparsification_info",
    "to_yaml_str",
]

_MODIFIERS = "sparseml.sparsification.modifiers"
_INFO = "sparseml.sparsification.info"
_BUILDERS = "sparseml.sparsification.recipe_builder"
_MODULE_OF = {
    "ConstantPruningModifier": _MODIFIERS,
    "EpochRangeModifier": _MODIFIERS,
    "GMPruningModifier": _MODIFIERS,
    "LearningRateModifier": _MODIFIERS,
    "ModifierInfo": _INFO,
    "ModifierPropInfo": _INFO,
    "ModifierType": _INFO,
    "ModifierYAMLBuilder": _BUILDERS,
    "RecipeYAMLBuilder": _BUILDERS,
    "SetLearningRateModifier": _MODIFIERS,
    "SparsificationInfo": _INFO,
    "TrainableParamsModifier": _MODIFIERS,
    "load_sparsification_info": _INFO,
    "save_sparsification_info": _INFO,
    "sparsification_info": _INFO,
    "to_yaml_str": _BUILDERS,
}


def __getattr__(name: str) -> Any:
    # descriptions need pydantic, which not everybody who imports a modifier needs
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
