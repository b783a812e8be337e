"""Recipes written by programs."""

from __future__ import annotations

import copy
import os
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.props import ModifierProp
from sparseml.utils.paths import clean_path, create_parent_dirs
from sparseml.utils.text import did_you_mean

__all__ = ["ModifierYAMLBuilder", "RecipeYAMLBuilder", "to_yaml_str"]

_GROUP_WORD = "modifiers"


def to_yaml_str(val: Any) -> str:
    """Write a value as YAML: ``str(val)`` for text and numbers; lists and dicts on new lines."""
    if isinstance(val, (str, int, float, bool)):
        return str(val)
    text = yaml.safe_dump(val, sort_keys=False).removesuffix("...\n").rstrip("\n")
    return f"\n{text}" if isinstance(val, (list, tuple, dict)) and val else text


def _lines(name: str, value: Any) -> list[str]:
    head, *rest = to_yaml_str(value).split("\n")
    return [f"{name}: {head}".rstrip(), *(f"  {line}" for line in rest)]


class _UnknownFieldError(ValueError, AttributeError):
    """A ValueError that hasattr() and copy() understand."""


class ModifierYAMLBuilder:
    """A modifier in a recipe being written; its fields are attributes, others a ValueError."""

    def __init__(self, modifier_class: type[BaseModifier], **kwargs: Any) -> None:
        if not (isinstance(modifier_class, type) and issubclass(modifier_class, BaseModifier)):
            raise AssertionError(f"a modifier class is needed, found {modifier_class!r}")
        vars(self).update(_modifier_class=modifier_class, _fields={})
        for name, value in kwargs.items():
            setattr(self, name, value)

    @property
    def modifier_class(self) -> type[BaseModifier]:
        """The modifier's class."""
        clazz: type[BaseModifier] = vars(self)["_modifier_class"]
        return clazz

    def _check_field(self, name: str) -> None:
        clazz = self.modifier_class
        prop = getattr(clazz, name, None)
        if not isinstance(prop, ModifierProp) or not prop.serializable:
            known = [key for key in dir(clazz) if isinstance(getattr(clazz, key, 0), ModifierProp)]
            hint = did_you_mean(name, known)
            raise _UnknownFieldError(f"{name!r} is not a field of {clazz.__name__}{hint}")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_modifier_class" not in vars(self):
            raise AttributeError(name)
        self._check_field(name)
        return vars(self)["_fields"].get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._check_field(name)
        vars(self)["_fields"][name] = value

    def copy(self) -> ModifierYAMLBuilder:
        """Return an independent copy."""
        return ModifierYAMLBuilder(self.modifier_class, **copy.deepcopy(vars(self)["_fields"]))

    def build_yaml_str(self) -> str:
        """Return the modifier as an item of a list in a recipe."""
        lines = [f"- !{self.modifier_class.__name__}"]
        for name, value in vars(self)["_fields"].items():
            lines += [f"  {line}" for line in _lines(name, value)]
        return "\n".join(lines) if len(lines) > 1 else f"{lines[0]}\n"


Group = list[ModifierYAMLBuilder]


def _checked_group(name: str, builders: Any) -> Group:
    if _GROUP_WORD not in name:
        raise ValueError(f"the name of a group must contain '{_GROUP_WORD}', found {name!r}")
    if not isinstance(builders, list):
        raise ValueError(f"the group {name!r} must be a list, found {type(builders).__name__}")
    for builder in builders:
        if not isinstance(builder, ModifierYAMLBuilder):
            found = type(builder).__name__
            raise ValueError(f"the group {name!r} must hold ModifierYAMLBuilders, found {found}")
    return builders


class RecipeYAMLBuilder:
    """A recipe being written, of values and of lists of ``ModifierYAMLBuilder`` by name.

    :raises ValueError: if an argument is anything else, or a group's name lacks ``modifiers``
    """

    def __init__(
        self,
        variables: dict[str, Any] | None = None,
        modifier_groups: dict[str, Group] | None = None,
    ) -> None:
        for argument in (variables, modifier_groups):
            if argument is not None and not isinstance(argument, dict):
                raise ValueError(f"a dict is needed, found {type(argument).__name__}")
        self._variables = dict(variables or {})
        self._groups: dict[str, Group] = {}
        for name, builders in (modifier_groups or {}).items():
            self.add_modifier_group(name, builders)

    def add_modifier_group(
        self, name: str, modifier_builders: Group | None = None
    ) -> RecipeYAMLBuilder:
        """Add a group; a KeyError if there is one of that name, a ValueError for anything else."""
        if name in self._groups:
            raise KeyError(f"the recipe already has a group {name!r}")
        builders = [] if modifier_builders is None else modifier_builders
        self._groups[name] = _checked_group(name, builders)
        return self

    def get_modifier_group(self, name: str) -> Group | None:
        """Return the builders of a group, None if there is no such group."""
        return self._groups.get(name)

    def get_modifier_builders(
        self,
        modifier_type: type[BaseModifier] | str | None = None,
        modifier_groups: str | Iterable[str] | None = None,
    ) -> Group:
        """Return builders from all groups.

        :param modifier_type: only those of this class or a class derived from it, or of exactly
            the class of this name
        :param modifier_groups: only those of this group or these groups
        """
        names = [modifier_groups] if isinstance(modifier_groups, str) else modifier_groups
        names = list(self._groups if names is None else names)
        groups = [group for name, group in self._groups.items() if name in names]
        found = [builder for group in groups for builder in group]
        if isinstance(modifier_type, str):
            return [each for each in found if each.modifier_class.__name__ == modifier_type]
        return [each for each in found if issubclass(each.modifier_class, modifier_type or object)]

    def get_variable(self, name: str, default: Any = None) -> Any:
        """Return the value of a variable."""
        return self._variables.get(name, default)

    def has_variable(self, name: str) -> bool:
        """Whether the recipe has a variable."""
        return name in self._variables

    def set_variable(self, name: str, val: Any) -> RecipeYAMLBuilder:
        """Set a variable."""
        self._variables[name] = val
        return self

    def build_yaml_str(self) -> str:
        """Return the recipe."""
        variables = [line for item in self._variables.items() for line in _lines(*item)]
        parts = ["\n".join(variables)] if variables else []
        for name, group in self._groups.items():
            if group:
                items = "\n\n".join(builder.build_yaml_str().rstrip("\n") for builder in group)
                parts.append(f"{name}:\n{textwrap.indent(items, '  ')}")
        return "\n\n".join(parts) + "\n"

    def save_yaml(self, file_path: str | os.PathLike[str]) -> None:
        """Write the recipe to a file; ``.yaml`` is appended to a path without a dot."""
        self._write(file_path, ".yaml", self.build_yaml_str())

    def save_markdown(self, file_path: str | os.PathLike[str], desc: str = "") -> None:
        """Write the recipe above a text; ``.md`` is appended to a path without a dot."""
        self._write(file_path, ".md", f"---\n{self.build_yaml_str()}---\n{desc}")

    @staticmethod
    def _write(file_path: str | os.PathLike[str], extension: str, text: str) -> None:
        path = os.fspath(file_path)
        path = clean_path(path if "." in path else f"{path}{extension}")
        create_parent_dirs(path)
        Path(path).write_text(text, encoding="utf-8")
