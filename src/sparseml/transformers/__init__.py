"""Recipes in the world of Hugging Face Transformers: one callback, models, data, one shot.

Everything here drives the public interface of transformers. Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.transformers.auto_models import (
        SparseAutoConfig,
        SparseAutoModel,
        SparseAutoModelForCausalLM,
        SparseAutoTokenizer,
    )
    from sparseml.transformers.callback import SparseMLCallback
    from sparseml.transformers.structure import load_structure, load_weights

__all__ = [
    "SparseAutoConfig",
    "SparseAutoModel",
    "SparseAutoModelForCausalLM",
    "SparseAutoTokenizer",
    "SparseMLCallback",
    "load_structure",
    "load_weights",
]

_HOMES: dict[str, str] = {
    "auto_models": "SparseAutoConfig SparseAutoModel SparseAutoModelForCausalLM "
    "SparseAutoTokenizer",
    "callback": "SparseMLCallback",
    "structure": "load_structure load_weights",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
