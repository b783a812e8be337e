"""The classes that modifiers of every framework are made of."""

from __future__ import annotations

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.language.registration import ModifierYAML
from sparseml.optim.props import BaseObject, BaseProp, ModifierProp
from sparseml.optim.scheduled import BaseScheduled, BaseUpdate

__all__ = [
    "BaseModifier",
    "BaseObject",
    "BaseProp",
    "BaseScheduled",
    "BaseUpdate",
    "ModifierProp",
    "ModifierYAML",
]
