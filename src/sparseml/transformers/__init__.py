"""Recipes in the world of Hugging Face Transformers: one callback, models, data, one shot.

Everything here drives the public interface of transformers. Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.transformers.callback import SparseMLCallback
    from sparseml.transformers.glue import GLUE
    from sparseml.transformers.inputs import LabelledTexts, PlainText
    from sparseml.transformers.session import TextSession, open_session
    from sparseml.transformers.settings import OneShotSettings, TrainingSettings
    from sparseml.transformers.training import TextTraining, set_up_training

__all__ = [
    "GLUE",
    "LabelledTexts",
    "OneShotSettings",
    "PlainText",
    "SparseMLCallback",
    "TextSession",
    "TextTraining",
    "TrainingSettings",
    "open_session",
    "set_up_training",
]

_HOMES = {
    "callback": "SparseMLCallback",
    "glue": "GLUE",
    "inputs": "LabelledTexts PlainText",
    "session": "TextSession open_session",
    "settings": "OneShotSettings TrainingSettings",
    "training": "TextTraining set_up_training",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
