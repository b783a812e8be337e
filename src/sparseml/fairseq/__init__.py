"""Recipes in fairseq: a folder for its ``--user-dir``, one shot, and reports; nothing copied.

.. code-block:: console

    $ fairseq-train DATA --user-dir "$(python -m sparseml.fairseq)" --sparseml-recipe FILE ...

Nothing is imported before it is used, and fairseq may come from any distribution that has it.
"""

from __future__ import annotations

from pathlib import Path
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
    "USER_DIR",
    "Loaded",
    "OneShotSettings",
    "SequenceSession",
    "TrainedRun",
    "fairseq_files",
    "load_model",
    "open_session",
    "read_checkpoint",
]

USER_DIR = Path(__file__).parent / "user_dir" / "sparseml_plugin"
"""What to give to ``--user-dir``."""

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
