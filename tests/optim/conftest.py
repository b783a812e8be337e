"""A framework without anything behind it, whose modifiers only hold their fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sparseml.optim import BaseManager, LoadedRecipe, ModifierYAML, RecipeError, load_recipe
from sparseml.sparsification import (
    ConstantPruningModifier,
    EpochRangeModifier,
    GMPruningModifier,
    LearningRateModifier,
    SetLearningRateModifier,
)

FRAMEWORK = "toy"

for _modifier in (
    ConstantPruningModifier,
    EpochRangeModifier,
    GMPruningModifier,
    LearningRateModifier,
    SetLearningRateModifier,
):
    ModifierYAML(FRAMEWORK)(_modifier)


class ToyManager(BaseManager):
    @classmethod
    def from_yaml(cls, file_path: Any, **kwargs: Any) -> ToyManager:
        recipe = load_recipe(file_path, FRAMEWORK, **kwargs)
        return cls(recipe.modifiers, recipe.metadata)


@pytest.fixture
def manager_class() -> type[ToyManager]:
    return ToyManager


@pytest.fixture
def load() -> Callable[..., LoadedRecipe]:
    def load_toy(text: Any, **kwargs: Any) -> LoadedRecipe:
        return load_recipe(text, FRAMEWORK, **kwargs)

    return load_toy


@pytest.fixture
def error_of(load: Callable[..., LoadedRecipe]) -> Callable[..., RecipeError]:
    """The error that a recipe gives."""

    def raised(text: Any, **kwargs: Any) -> RecipeError:
        with pytest.raises(RecipeError) as info:
            load(text, **kwargs)
        return info.value

    return raised
