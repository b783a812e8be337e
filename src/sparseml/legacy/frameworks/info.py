"""What a framework can do on this machine, and to sparsify models, as data."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from pydantic import BaseModel
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
    """A property of a modifier: its name and meaning, the type of its values, what they may be."""

    name: str
    description: str
    type_: str
    restrictions: list[Any] | dict[str, Any] | None = None


class ModifierInfo(_JsonModel):
    """A modifier: the name of its class, what it does, its kind and what to beware of."""

    name: str
    description: str
    type_: ModifierType = ModifierType.misc
    props: list[ModifierPropInfo] = []
    warnings: list[str] | None = None


class SparsificationInfo(_JsonModel):
    """The modifiers of a framework."""

    modifiers: list[ModifierInfo] = []

    def type_modifiers(self, type_: ModifierType) -> list[ModifierInfo]:
        """Return the modifiers of one kind."""
        return [modifier for modifier in self.modifiers if modifier.type_ == type_]


class FrameworkInferenceProviderInfo(_JsonModel):
    """A device, of a kind such as cpu or gpu, that a framework can run models on."""

    name: str
    description: str
    device: str
    supported_sparsification: SparsificationInfo | None = None
    available: bool = False
    properties: dict[str, Any] = {}
    warnings: list[str] = []


class FrameworkInfo(_JsonModel):
    """A framework on this machine; versions of packages are None for those not installed."""

    framework: Framework
    package_versions: dict[str, str | None]
    sparsification: SparsificationInfo | None = None
    inference_providers: list[FrameworkInferenceProviderInfo] = []
    properties: dict[str, Any] = {}
    training_available: bool = False
    sparsification_available: bool = False
    exporting_onnx_available: bool = False
    inference_available: bool = False


def framework_info(framework: Any) -> FrameworkInfo:
    """Return what a framework, known by a thing of its, can do here; a ValueError if none is."""
    return execute_in_sparseml_framework(framework, "framework_info")


def sparsification_info(framework: Any) -> SparsificationInfo:
    """Return what a framework, given as for :func:`framework_info`, can do to sparsify models."""
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
