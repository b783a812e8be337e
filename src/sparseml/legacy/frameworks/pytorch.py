"""What this package can do with PyTorch on this machine."""

from __future__ import annotations

from typing import Any

import torch

from sparseml.base import Framework, get_version, named_framework
from sparseml.legacy.frameworks.info import FrameworkInferenceProviderInfo, FrameworkInfo
from sparseml.pytorch.sparsification.info import sparsification_info

__all__ = ["detect_framework", "framework_info", "is_supported"]

_MARKS = ("torch", ".pt", ".mar")
_PACKAGES = ("torch", "torchvision", "onnx", "onnxscript", "safetensors", "timm", "transformers")


def detect_framework(item: Any) -> Framework:
    """Return ``Framework.pytorch`` for PyTorch's name, files and modules, else unknown.

    Members of ``Framework`` and their names (in any case) are returned as they are.
    """
    named = named_framework(item)
    if named is not None:
        return named
    marked = isinstance(item, str) and any(mark in item.lower() for mark in _MARKS)
    return Framework.pytorch if marked or isinstance(item, torch.nn.Module) else Framework.unknown


def is_supported(item: Any) -> bool:
    """Whether ``item`` is something of PyTorch's."""
    return detect_framework(item) == Framework.pytorch


def framework_info() -> FrameworkInfo:
    """Describe installed packages (exporting needs onnx and onnxscript), devices, abilities."""
    providers = [
        FrameworkInferenceProviderInfo(
            name=name,
            description=f"PyTorch on {description}",
            device=device,
            supported_sparsification=sparsification_info(),
            available=available,
        )
        for name, device, description, available in (
            ("cpu", "cpu", "the CPU", True),
            ("cuda", "gpu", "NVIDIA GPUs", torch.cuda.is_available()),
        )
    ]
    return FrameworkInfo(
        framework=Framework.pytorch,
        package_versions={name: get_version(name, raise_on_error=False) for name in _PACKAGES},
        sparsification=sparsification_info(),
        inference_providers=providers,
        training_available=True,
        sparsification_available=True,
        exporting_onnx_available=True,
        inference_available=True,
    )
