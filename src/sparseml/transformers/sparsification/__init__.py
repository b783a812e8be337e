"""Recipes in scripts that were written for SparseML 1.x: a ``Trainer`` that takes one.

New code is better off with a plain ``transformers.Trainer`` and its callback,
:class:`~sparseml.transformers.SparseMLCallback`.
"""

from __future__ import annotations

from sparseml.transformers.sparsification.trainer import (
    DisableHalfPrecisionCallback,
    RecipeManagerTrainerInterface,
    Trainer,
    TrainerInterface,
    TrainingArguments,
    TransformersTrainer,
)
from sparseml.transformers.structure import RECIPE_NAME

__all__ = [
    "RECIPE_NAME",
    "DisableHalfPrecisionCallback",
    "RecipeManagerTrainerInterface",
    "Trainer",
    "TrainerInterface",
    "TrainingArguments",
    "TransformersTrainer",
]
