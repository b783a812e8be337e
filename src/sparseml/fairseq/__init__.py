"""Recipes in the world of fairseq: one shot for translation and language models, and reports.

Nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.fairseq.reading import fairseq_files, read_checkpoint

__all__ = ["fairseq_files", "read_checkpoint"]

_HOMES = {"reading": "fairseq_files read_checkpoint"}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
