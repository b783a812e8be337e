"""Sparsification of PyTorch models while they train.

Names that need more than torch are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import Any

from sparseml.pytorch.base import (
    check_torch_install,
    check_torchvision_install,
    require_torch,
    require_torchvision,
    torch,
    torch_err,
)

__all__ = [
    "check_torch_install",
    "check_torchvision_install",
    "detect_framework",
    "framework_info",
    "is_supported",
    "require_torch",
    "require_torchvision",
    "sparsification_info",
    "torch",
    "torch_err",
    "torchvision",
    "torchvision_err",
]

_LAZY = {
    "detect_framework": "sparseml.pytorch.framework",
    "framework_info": "sparseml.pytorch.framework",
    "is_supported": "sparseml.pytorch.framework",
    "sparsification_info": "sparseml.pytorch.sparsification.info",
    "torchvision": "sparseml.pytorch.base",
    "torchvision_err": "sparseml.pytorch.base",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
