"""What a framework can do on this machine, as data."""

from __future__ import annotations

import os
from typing import Any

from pydantic import Field

from sparseml.base import Framework, execute_in_sparseml_framework
from sparseml.legacy.frameworks.sparsification import JsonModel, SparsificationInfo

__all__ = [
    "FrameworkInferenceProviderInfo",
    "FrameworkInfo",
    "framework_info",
    "load_framework_info",
    "save_framework_info",
]


class FrameworkInferenceProviderInfo(JsonModel):
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


class FrameworkInfo(JsonModel):
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
    """
    Return what a framework can do on this machine.

    :param framework: the framework, its name, or something that belongs to it
    :raises ValueError: if no framework is detected
    """
    info: FrameworkInfo = execute_in_sparseml_framework(framework, "framework_info")
    return info


def save_framework_info(framework: Any, path: str | os.PathLike[str] | None = None) -> None:
    """
    Write what a framework can do as JSON, or print it.

    :param framework: a ``FrameworkInfo``, or what :func:`framework_info` takes
    :param path: the file; None to print
    """
    known = isinstance(framework, FrameworkInfo)
    (framework if known else framework_info(framework)).write(path)


def load_framework_info(load: str) -> FrameworkInfo:
    """Read what :func:`save_framework_info` wrote, from a path or from JSON."""
    return FrameworkInfo.read(load)
