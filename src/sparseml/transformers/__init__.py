"""Recipes in the world of Hugging Face Transformers: one callback, models, data, one shot.

Everything here drives the public interface of transformers. Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.transformers.callback import SparseMLCallback
    from sparseml.transformers.shrunk import load_shrunk

__all__ = ["SparseMLCallback", "load_shrunk"]

_HOMES: dict[str, str] = {"callback": "SparseMLCallback", "shrunk": "load_shrunk"}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
