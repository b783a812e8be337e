"""The recipe language: from text to modifiers and back. Knows no torch."""

from sparseml.optim.errors import RecipeError
from sparseml.optim.modifier import (
    BaseModifier,
    BaseObject,
    BaseProp,
    BaseScheduled,
    BaseUpdate,
    ModifierProp,
    ModifierYAML,
)

__all__ = [
    "BaseModifier",
    "BaseObject",
    "BaseProp",
    "BaseScheduled",
    "BaseUpdate",
    "ModifierProp",
    "ModifierYAML",
    "RecipeError",
]
