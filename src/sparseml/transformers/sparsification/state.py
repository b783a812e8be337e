"""What a manager's state is in checkpoint folders of a Trainer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import nn

from sparseml.pytorch.utils.saving.checkpoint import pack_masks, unpack_masks
from sparseml.pytorch.utils.saving.files import read_torch_file, write_torch_file
from sparseml.transformers.structure import load_weights

STATE_NAME = "sparseml_state.pt"
_VERSION = 1
_TRAINER_STATE = "trainer_state.json"


def write_state(folder: str | os.PathLike[str], manager: Any, state: Any) -> None:
    """Write a manager's recipe and state into a checkpoint folder; masks in a bit per weight."""
    content = {"version": _VERSION, "recipe": _text(manager), "manager": pack_masks(state)}
    write_torch_file(Path(folder) / STATE_NAME, content)


def has_state(folder: str | os.PathLike[str]) -> bool:
    """Return whether a checkpoint holds the state of a recipe; those of SparseML 1.x do not."""
    return (Path(folder) / STATE_NAME).is_file()


def read_state(folder: str | os.PathLike[str], manager: Any, model: nn.Module) -> bool:
    """Bring an initialised manager to where a checkpoint was written; False if it has no state.

    :raises ValueError: for the state of another recipe
    :raises CheckpointError: if the file is damaged
    """
    file = Path(folder) / STATE_NAME
    if not has_state(folder):
        return False
    content = read_torch_file(file, check=True)
    if content["recipe"] != _text(manager):
        raise ValueError(
            f"{file} is of another recipe; go on with that of the run, or start anew:\n"
            f"{content['recipe']}"
        )
    state, names = unpack_masks(content["manager"]), set(model.state_dict())
    manager.load_structure_state(model, state)
    if set(model.state_dict()) != names:
        load_weights(model, folder)
    manager.load_state_dict(state)
    return True


def epoch_of(folder: str | os.PathLike[str]) -> float:
    """Return the epoch at which the Trainer has written a checkpoint; 0.0 if it does not say."""
    file = Path(folder) / _TRAINER_STATE
    if not file.is_file():
        return 0.0
    return float(json.loads(file.read_text(encoding="utf-8")).get("epoch") or 0.0)


def _text(manager: Any) -> str:
    return "\n".join(manager.to_string_lines(include_metadata=False))
