"""Recipes in the world of Hugging Face Transformers: one callback, models, data, one shot.

Everything here drives the public interface of transformers. Nothing is imported before it is used.
"""

from __future__ import annotations

from sparseml.lazy import lazy_names

__all__: list[str] = []

_HOMES: dict[str, str] = {}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
