"""Recipes in the world of fairseq: one shot for translation and language models, and reports.

Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.fairseq.glue import GLUE
    from sparseml.fairseq.models import Loaded, load_model
    from sparseml.fairseq.reading import fairseq_files, read_checkpoint
    from sparseml.fairseq.report import TrainedRun
    from sparseml.fairseq.session import SequenceSession, open_session
    from sparseml.fairseq.settings import OneShotSettings

__all__ = [
    "GLUE",
    "Loaded",
    "OneShotSettings",
    "SequenceSession",
    "TrainedRun",
    "fairseq_files",
    "load_model",
    "open_session",
    "read_checkpoint",
]

_HOMES = {
    "glue": "GLUE",
    "models": "Loaded load_model",
    "reading": "fairseq_files read_checkpoint",
    "report": "TrainedRun",
    "session": "SequenceSession open_session",
    "settings": "OneShotSettings",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
