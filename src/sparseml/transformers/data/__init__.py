"""GLUE, and texts of one's own: tasks, reading, tokens, metrics, classifiers.

Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.transformers.data.classifier import (
        Classifier,
        label_order,
        load_classifier,
        require_model_folder,
    )
    from sparseml.transformers.data.metrics import metrics_of, score
    from sparseml.transformers.data.reading import TextData, open_texts
    from sparseml.transformers.data.tasks import GLUE_TASKS, TextTask, glue_task
    from sparseml.transformers.data.tokens import batches_of, encode

__all__ = [
    "GLUE_TASKS",
    "Classifier",
    "TextData",
    "TextTask",
    "batches_of",
    "encode",
    "glue_task",
    "label_order",
    "load_classifier",
    "metrics_of",
    "open_texts",
    "require_model_folder",
    "score",
]

_HOMES = {
    "classifier": "Classifier label_order load_classifier require_model_folder",
    "metrics": "metrics_of score",
    "reading": "TextData open_texts",
    "tasks": "GLUE_TASKS TextTask glue_task",
    "tokens": "batches_of encode",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
