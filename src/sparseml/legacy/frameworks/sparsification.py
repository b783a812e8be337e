"""What a framework can do to sparsify models, as data."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from pydantic import BaseModel, Field
from typing_extensions import Self

from sparseml.base import execute_in_sparseml_framework
from sparseml.legacy.helpers.json_text import read_json_text, write_json_text

__all__ = [
    "JsonModel",
    "ModifierInfo",
    "ModifierPropInfo",
    "ModifierType",
    "SparsificationInfo",
    "load_sparsification_info",
    "save_sparsification_info",
    "sparsification_info",
]


class JsonModel(BaseModel):
    """A pydantic model in a file, that answers to two names of pydantic 1 without a warning."""

    def json(self, **kwargs: Any) -> str:
        """Return what ``model_dump_json`` does."""
        return self.model_dump_json(**kwargs)

    @classmethod
    def parse_raw(cls, b: str | bytes, **kwargs: Any) -> Self:
        """Return what ``model_validate_json`` does."""
        return cls.model_validate_json(b, **kwargs)

    def write(self, path: str | os.PathLike[str] | None) -> None:
        """Write to a file, or print if there is no path."""
        write_json_text(self.model_dump_json(indent=4), path)

    @classmethod
    def read(cls, path_or_json: str) -> Self:
        """Undo :meth:`write`."""
        return cls.model_validate_json(read_json_text(path_or_json))


class ModifierType(Enum):
    """Kinds of modifiers."""

    general = "general"
    training = "training"
    pruning = "pruning"
    quantization = "quantization"
    act_sparsity = "act_sparsity"
    misc = "misc"


class ModifierPropInfo(JsonModel):
    """A property of a modifier."""

    name: str = Field(description="the property's name")
    description: str = Field(description="what it means")
    type_: str = Field(description="the type of its values")
    restrictions: list[Any] | dict[str, Any] | None = Field(
        default=None, description="restrictions of its values"
    )


class ModifierInfo(JsonModel):
    """A modifier."""

    name: str = Field(description="the modifier's class")
    description: str = Field(description="what it does")
    type_: ModifierType = Field(default=ModifierType.misc, description="its kind")
    props: list[ModifierPropInfo] = Field(default=[], description="its properties")
    warnings: list[str] | None = Field(default=None, description="what to beware of")


class SparsificationInfo(JsonModel):
    """The modifiers of a framework."""

    modifiers: list[ModifierInfo] = Field(default=[], description="the modifiers")

    def type_modifiers(self, type_: ModifierType) -> list[ModifierInfo]:
        """Return the modifiers of one kind."""
        return [modifier for modifier in self.modifiers if modifier.type_ == type_]


def sparsification_info(framework: Any) -> SparsificationInfo:
    """
    Return what a framework can do.

    :param framework: the framework, its name, or something that belongs to it
    :raises ValueError: if no framework is detected
    """
    info: SparsificationInfo = execute_in_sparseml_framework(framework, "sparsification_info")
    return info


def save_sparsification_info(framework: Any, path: str | os.PathLike[str] | None = None) -> None:
    """
    Write what a framework can do as JSON, or print it.

    :param framework: a ``SparsificationInfo``, or what :func:`sparsification_info` takes
    :param path: the file; None to print
    """
    known = isinstance(framework, SparsificationInfo)
    (framework if known else sparsification_info(framework)).write(path)


def load_sparsification_info(load: str) -> SparsificationInfo:
    """Read what :func:`save_sparsification_info` wrote, from a path or from JSON."""
    return SparsificationInfo.read(load)
