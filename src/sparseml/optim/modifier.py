"""The classes that modifiers of every framework are made of."""

from __future__ import annotations

from sparseml.optim.base_modifier import BaseModifier, BaseObject
from sparseml.optim.props import BaseProp, ModifierProp
from sparseml.optim.registration import ModifierYAML
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
