"""Sparsification of PyTorch models while they train.

Names that need more than torch are imported when first used.
"""

from __future__ import annotations

from sparseml.lazy import lazy_names
from sparseml.pytorch.base import (
    check_torch_install,
    check_torchvision_install,
    require_torch,
    require_torchvision,
    torch,
    torch_err,
)

_LAZY = {
    "sparseml.legacy.frameworks.pytorch": "detect_framework framework_info is_supported",
    "sparseml.legacy.recipes.template": "recipe_template",
    "sparseml.pytorch.base": "torchvision torchvision_err",
    "sparseml.pytorch.sparsification.info": "sparsification_info",
}
__all__ = [
    "check_torch_install",
    "check_torchvision_install",
    "require_torch",
    "require_torchvision",
    "torch",
    "torch_err",
]
__all__ += " ".join(_LAZY.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _LAZY)
