"""What a framework can do on this machine, and to sparsify models, as data."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from pydantic import BaseModel, Field
from typing_extensions import Self

from sparseml.base import Framework, execute_in_sparseml_framework
from sparseml.legacy.helpers.json_text import read_json_text, write_json_text

__all__ = [
    "FrameworkInferenceProviderInfo",
    "FrameworkInfo",
    "ModifierInfo",
    "ModifierPropInfo",
    "ModifierType",
    "SparsificationInfo",
    "framework_info",
    "load_framework_info",
    "load_sparsification_info",
    "save_framework_info",
    "save_sparsification_info",
    "sparsification_info",
]

_Path = str | os.PathLike[str]


class _JsonModel(BaseModel):
    """A pydantic model that answers to two names of pydantic 1 without a warning."""

    def json(self, **kwargs: Any) -> str:
        """Return what ``model_dump_json`` does."""
        return self.model_dump_json(**kwargs)

    @classmethod
    def parse_raw(cls, b: str | bytes, **kwargs: Any) -> Self:
        """Return what ``model_validate_json`` does."""
        return cls.model_validate_json(b, **kwargs)


class ModifierType(Enum):
    """Kinds of modifiers."""

    general = "general"
    training = "training"
    pruning = "pruning"
    quantization = "quantization"
    act_sparsity = "act_sparsity"
    misc = "misc"


class ModifierPropInfo(_JsonModel):
    """A property of a modifier."""

    name: str = Field(description="the property's name")
    description: str = Field(description="what it means")
    type_: str = Field(description="the type of its values")
    restrictions: list[Any] | dict[str, Any] | None = Field(
        default=None, description="restrictions of its values"
    )


class ModifierInfo(_JsonModel):
    """A modifier."""

    name: str = Field(description="the modifier's class")
    description: str = Field(description="what it does")
    type_: ModifierType = Field(default=ModifierType.misc, description="its kind")
    props: list[ModifierPropInfo] = Field(default=[], description="its properties")
    warnings: list[str] | None = Field(default=None, description="what to beware of")


class SparsificationInfo(_JsonModel):
    """The modifiers of a framework."""

    modifiers: list[ModifierInfo] = Field(default=[], description="the modifiers")

    def type_modifiers(self, type_: ModifierType) -> list[ModifierInfo]:
        """Return the modifiers of one kind."""
        return [modifier for modifier in self.modifiers if modifier.type_ == type_]


class FrameworkInferenceProviderInfo(_JsonModel):
    """A device that a framework can run models on."""

    name: str = Field(description="the provider's name")
    description: str = Field(description="what it is")
    device: str = Field(description="the kind of device, such as cpu or gpu")
    supported_sparsification: SparsificationInfo | None = Field(
        default=None, description="what it supports"
    )
    available: bool = Field(default=False, description="whether this machine has it")
    properties: dict[str, Any] = Field(default={}, description="anything else about it")
    warnings: list[str] = Field(default=[], description="what to beware of")


class FrameworkInfo(_JsonModel):
    """A framework on this machine."""

    framework: Framework = Field(description="the framework")
    package_versions: dict[str, str | None] = Field(
        description="versions of its packages, None for those not installed"
    )
    sparsification: SparsificationInfo | None = Field(
        default=None, description="what it can do to sparsify models"
    )
    inference_providers: list[FrameworkInferenceProviderInfo] = Field(
        default=[], description="the devices that it can run models on"
    )
    properties: dict[str, Any] = Field(default={}, description="anything else about it")
    training_available: bool = Field(default=False, description="whether it can train")
    sparsification_available: bool = Field(default=False, description="whether it can sparsify")
    exporting_onnx_available: bool = Field(default=False, description="whether it writes ONNX")
    inference_available: bool = Field(default=False, description="whether it can run models")


def framework_info(framework: Any) -> FrameworkInfo:
    """Return what a framework, given by itself, its name or a thing of its, can do here.

    :raises ValueError: if no framework is detected
    """
    return execute_in_sparseml_framework(framework, "framework_info")


def sparsification_info(framework: Any) -> SparsificationInfo:
    """Return what a framework, given as for :func:`framework_info`, can do to sparsify models.

    :raises ValueError: if no framework is detected
    """
    return execute_in_sparseml_framework(framework, "sparsification_info")


def save_framework_info(framework: Any, path: _Path | None = None) -> None:
    """Write a ``FrameworkInfo``, or that of a framework, as JSON to a file; print it for None."""
    info = framework if isinstance(framework, FrameworkInfo) else framework_info(framework)
    write_json_text(info.model_dump_json(indent=4), path)


def save_sparsification_info(framework: Any, path: _Path | None = None) -> None:
    """Write a ``SparsificationInfo``, or a framework's, as JSON to a file; print it for None."""
    known = isinstance(framework, SparsificationInfo)
    info = framework if known else sparsification_info(framework)
    write_json_text(info.model_dump_json(indent=4), path)


def load_framework_info(load: str) -> FrameworkInfo:
    """Read what :func:`save_framework_info` wrote, from a path or from JSON."""
    return FrameworkInfo.model_validate_json(read_json_text(load))


def load_sparsification_info(load: str) -> SparsificationInfo:
    """Read what :func:`save_sparsification_info` wrote, from a path or from JSON."""
    return SparsificationInfo.model_validate_json(read_json_text(load))
