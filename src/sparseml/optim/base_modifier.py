"""What every modifier of every framework has in common.

A modifier is one change to the training or to the model. Its fields are ``ModifierProp``
properties, which are what a recipe gives and what is printed.
"""

from __future__ import annotations

import hashlib
import operator
from typing import Any

from sparseml.optim.language.building import load_modifier, load_modifiers
from sparseml.optim.language.recipe_text import field_text
from sparseml.optim.language.registration import tag_of
from sparseml.optim.ordering import comparing, end_key, modifier_key, stage_key, start_key
from sparseml.optim.props import BaseObject, ModifierProp
from sparseml.optim.types import SparsificationTypes


class BaseModifier(BaseObject):
    """A change to the training or to the model, described by its properties."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._initialized = False
        self._enabled = True

    comparator = staticmethod(comparing(modifier_key))
    comparator_lists = staticmethod(comparing(stage_key))
    comparator_ends = staticmethod(comparing(end_key))
    comparator_starts = staticmethod(comparing(start_key))
    comparator_identifiers = staticmethod(comparing(operator.methodcaller("identifier")))
    load_framework_list = staticmethod(load_modifiers)
    load_framework_obj = staticmethod(load_modifier)
    yaml_key = staticmethod(tag_of)

    @ModifierProp(serializable=False)
    def sparsification_types(self) -> list[SparsificationTypes]:
        """What the modifier does to a model."""
        return []

    @ModifierProp(serializable=False)
    def initialized(self) -> bool:
        """Whether the modifier is ready to act on a model."""
        return self._initialized

    @ModifierProp(serializable=False, restrict_initialized=False)
    def enabled(self) -> bool:
        """Whether the modifier acts at all."""
        return self._enabled

    @enabled.setter  # type: ignore[no-redef]
    def enabled(self, value: bool) -> None:
        self._enabled = value

    def validate(self) -> None:
        """Check the schedule, else a ValueError; other values are checked when they are given."""
        for part in ("schedule", "update"):
            getattr(self, f"validate_{part}", lambda: None)()

    def props(
        self, only_serializable: bool, format_str: bool = False, format_repr: bool = False
    ) -> dict[str, Any]:
        """The properties and their values, in alphabetical order.

        :param only_serializable: leave out those that recipes do not show
        :param format_str: give ``str(value)`` instead of the value
        :param format_repr: give ``repr(value)`` instead of the value
        :raises ValueError: if both formats are asked for
        """
        if format_str and format_repr:
            raise ValueError("only one of format_str and format_repr can be asked for")
        form = str if format_str else repr if format_repr else lambda value: value
        values = {}
        for name in dir(type(self)):
            prop = getattr(type(self), name, None)
            if not isinstance(prop, ModifierProp) or (only_serializable and not prop.serializable):
                continue
            value = getattr(self, name)
            omitted = prop.no_serialize_val
            if value is not omitted and (omitted is None or value != omitted):
                values[name] = form(value)
        return values

    def identifier(self, extra: Any = "") -> str:
        """A name that depends on the class and on all serializable properties."""
        fields = sorted(f"{key}:{value}" for key, value in self.props(True).items())
        digest = hashlib.md5(str(fields).encode(), usedforsecurity=False).hexdigest()
        name = f"{type(self).__name__}-{digest}"
        return f"{name}-{extra}" if extra else name

    def to_lines(self, bullet: str = "", indent: str = "    ") -> list[str]:
        """The modifier as lines of a recipe."""
        fields = self.props(only_serializable=True).items()
        return [
            f"{bullet}{tag_of(type(self))}",
            *(f"{indent}{key}: {field_text(value)}" for key, value in fields),
        ]

    def __str__(self) -> str:
        return "\n".join(self.to_lines())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.props(only_serializable=False, format_repr=True)})"
