"""Which torch and torchvision are installed, and functions that need them.

torchvision is optional and slow to import, so it is imported when first asked for.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from sparseml.base import check_version

try:
    import torch

    torch_err: Exception | None = None
except ImportError as _error:  # pragma: no cover - torch is a dependency
    torch = None  # type: ignore[assignment]
    torch_err = _error

__all__ = [
    "check_torch_install",
    "check_torchvision_install",
    "require_torch",
    "require_torchvision",
    "torch",
    "torch_err",
    "torchvision",
    "torchvision_err",
]

_TORCH_MIN_VERSION = "1.0.0"
torchvision: Any
torchvision_err: Exception | None
_Function = TypeVar("_Function", bound=Callable[..., Any])


def __getattr__(name: str) -> Any:
    if name not in ("torchvision", "torchvision_err"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: dict[str, Any] = {"torchvision": None, "torchvision_err": None}
    try:
        found["torchvision"] = importlib.import_module("torchvision")
    except ImportError as error:
        found["torchvision_err"] = error
    globals().update(found)
    return found[name]


def _check_install(
    package: str, min_version: str | None, max_version: str | None, raise_on_error: bool
) -> bool:
    error = getattr(sys.modules[__name__], f"{package}_err")
    if error is not None and raise_on_error:
        raise error
    return error is None and check_version(package, min_version, max_version, raise_on_error)


def check_torch_install(
    min_version: str | None = _TORCH_MIN_VERSION,
    max_version: str | None = None,
    raise_on_error: bool = True,
) -> bool:
    """Whether torch is installed in a version within the (inclusive) bounds.

    :raises ImportError: if it is not and ``raise_on_error`` is set
    """
    return _check_install("torch", min_version, max_version, raise_on_error)


def check_torchvision_install(
    min_version: str | None = None,
    max_version: str | None = None,
    raise_on_error: bool = True,
) -> bool:
    """Whether torchvision is, as :func:`check_torch_install` says of torch."""
    return _check_install("torchvision", min_version, max_version, raise_on_error)


def _requires(check: Callable[[], bool]) -> Callable[[_Function], _Function]:
    def decorate(function: _Function) -> _Function:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            check()
            return function(*args, **kwargs)

        return checked  # type: ignore[return-value]

    return decorate


def require_torch(
    min_version: str | None = _TORCH_MIN_VERSION, max_version: str | None = None
) -> Callable[[_Function], _Function]:
    """Decorator factory: calling the function raises ``ImportError`` unless torch fits."""
    return _requires(lambda: check_torch_install(min_version, max_version))


def require_torchvision(
    min_version: str | None = None, max_version: str | None = None
) -> Callable[[_Function], _Function]:
    """Decorator factory: calling the function raises ``ImportError`` unless torchvision fits."""
    return _requires(lambda: check_torchvision_install(min_version, max_version))
