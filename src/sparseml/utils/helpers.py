"""All of ``sparseml.utils``, under the name from which older code imports it."""

from __future__ import annotations

from typing import Any

import sparseml.utils as _utils

__all__ = list(_utils.__all__)


def __getattr__(name: str) -> Any:
    if name not in _utils.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_utils, name)
