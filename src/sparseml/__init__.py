"""
Sparsify neural networks while they train.

Importing this package is cheap: it loads neither torch nor anything else that is not part of
Python. Names that need more are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import Any, NoReturn

from sparseml._rivals import refuse_rivals

refuse_rivals()

from sparseml.version import (  # noqa: E402
    __version__,
    is_release,
    version,
    version_base,
    version_bug,
    version_build,
    version_major,
    version_major_minor,
    version_minor,
)

__all__ = [
    "Framework",
    "FrameworkInferenceProviderInfo",
    "FrameworkInfo",
    "SparsificationInfo",
    "__version__",
    "check_version",
    "detect_framework",
    "detect_frameworks",
    "evaluate",
    "execute_in_sparseml_framework",
    "export",
    "framework_info",
    "get_main_logger",
    "get_nm_root_logger",
    "get_version",
    "is_release",
    "load_framework_info",
    "load_sparsification_info",
    "reset_session",
    "save_framework_info",
    "save_sparsification_info",
    "set_logging_level",
    "sparsification_info",
    "version",
    "version_base",
    "version_bug",
    "version_build",
    "version_major",
    "version_major_minor",
    "version_minor",
]

_MODULE_OF = {
    **dict.fromkeys(
        (
            "Framework",
            "check_version",
            "detect_framework",
            "detect_frameworks",
            "execute_in_sparseml_framework",
            "get_version",
        ),
        "sparseml.base",
    ),
    **dict.fromkeys(
        (
            "FrameworkInferenceProviderInfo",
            "FrameworkInfo",
            "framework_info",
            "load_framework_info",
            "save_framework_info",
        ),
        "sparseml.framework",
    ),
    **dict.fromkeys(("get_main_logger", "get_nm_root_logger", "set_logging_level"), "sparseml.log"),
    **dict.fromkeys(
        (
            "SparsificationInfo",
            "load_sparsification_info",
            "save_sparsification_info",
            "sparsification_info",
        ),
        "sparseml.sparsification",
    ),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})


def reset_session() -> None:
    """
    Forget the active session.

    Code written for SparseML 1.x calls this between runs. Recipes here keep their state in their
    manager and in no other place, so there is nothing to forget.
    """


def evaluate(*_args: Any, **_kwargs: Any) -> NoReturn:
    """
    Not part of this package.

    :raises NotImplementedError: always
    """
    raise NotImplementedError(
        "sparseml.evaluate belonged to SparseML 1.x and its runtime, which are no longer "
        "maintained; evaluate the PyTorch model in your own loop or with the trainer you use"
    )


def export(*_args: Any, **_kwargs: Any) -> NoReturn:
    """
    Not part of this package.

    :raises NotImplementedError: always
    """
    raise NotImplementedError(
        "sparseml.export belonged to SparseML 1.x and its runtime, which are no longer maintained; "
        "use torch.onnx.export or sparseml.pytorch.utils.ModuleExporter"
    )
