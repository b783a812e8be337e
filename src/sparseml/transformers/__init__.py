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
    from sparseml.transformers.glue import GLUE
    from sparseml.transformers.inputs import LabelledTexts, PlainText
    from sparseml.transformers.session import TextSession, open_session
    from sparseml.transformers.settings import OneShotSettings, TrainingSettings
    from sparseml.transformers.shrunk import load_shrunk
    from sparseml.transformers.structure import load_structure, load_weights
    from sparseml.transformers.training import TextTraining, set_up_training

__all__ = [
    "GLUE",
    "LabelledTexts",
    "OneShotSettings",
    "PlainText",
    "SparseAutoConfig",
    "SparseAutoModel",
    "SparseAutoModelForCausalLM",
    "SparseAutoTokenizer",
    "SparseMLCallback",
    "TextSession",
    "TextTraining",
    "TrainingSettings",
    "load_shrunk",
    "load_structure",
    "load_weights",
    "open_session",
    "set_up_training",
]

_HOMES = {
    "auto_models": (
        "SparseAutoConfig SparseAutoModel SparseAutoModelForCausalLM SparseAutoTokenizer"
    ),
    "callback": "SparseMLCallback",
    "glue": "GLUE",
    "inputs": "LabelledTexts PlainText",
    "session": "TextSession open_session",
    "settings": "OneShotSettings TrainingSettings",
    "shrunk": "load_shrunk",
    "structure": "load_structure load_weights",
    "training": "TextTraining set_up_training",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
