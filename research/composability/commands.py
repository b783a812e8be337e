"""What the scripts of this folder have in common: they are commands of ``sparseml compose``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from multi30k import work_folder

from sparseml.cli import main

HERE = Path(__file__).resolve().parent
ORIGIN = work_folder() / "origin.safetensors"
STORE = work_folder() / "store"
PLAN = STORE.parent / "plan.json"
MODEL, DATA = "multi30k:model", "multi30k:data"


def compose(*words: object) -> None:
    """Run ``sparseml compose`` with some words; what it says goes to the terminal."""
    texts: Sequence[str] = ["compose", *map(str, words)]
    # processes of their own find the translator, too
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *([before] if before else [])])
    try:
        main(texts, standalone_mode=False)
    except SystemExit as end:
        if end.code:
            raise
