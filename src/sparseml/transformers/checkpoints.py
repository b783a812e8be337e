"""What a recipe adds to the checkpoints of a ``transformers.Trainer``, and reading it back."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerState, TrainingArguments

from sparseml.pytorch.utils.model import load_model_state
from sparseml.pytorch.utils.saving.checkpoint import pack_masks, unpack_masks
from sparseml.pytorch.utils.saving.files import (
    CheckpointError,
    read_torch_file,
    write_torch_file,
)
from sparseml.run.errors import one_line
from sparseml.transformers.errors import CallbackError
from sparseml.transformers.structure import RECIPE_NAME, read_weights
from sparseml.utils.paths import file_digest
from sparseml.utils.plain import json_of

STATE_NAME = "sparseml_state.pt"
_TRAINER_STATE = "trainer_state.json"
_VERSION = 1
# what the first process writes before the state of the recipe; others may be writing theirs
_HASHED = re.compile(
    r".*\.safetensors|pytorch_model.*\.bin|(optimizer|scheduler|scaler)\.pt|rng_state(_0)?\.pth"
)
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
# what tells one moment of one run from any other
_TELLING = ("global_step", "total_flos", "log_history")


def write_recipe(folder: str | os.PathLike[str], manager: Any) -> None:
    """Write ``recipe.yaml`` beside a model."""
    manager.save(Path(folder) / RECIPE_NAME)


def write_state(folder: str | os.PathLike[str], manager: Any, state: Mapping[str, Any]) -> None:
    """Write the state of a manager into a checkpoint folder, with masks of one bit per weight.

    With it come the digests of what the Trainer has written there.

    :param state: ``manager.state_dict()``
    """
    content = {"version": _VERSION, "recipe": _text(manager), "manager": pack_masks(state)}
    found = sorted(path for path in Path(folder).iterdir() if _HASHED.fullmatch(path.name))
    content["files"] = {path.name: file_digest(path) for path in found}
    write_torch_file(Path(folder) / STATE_NAME, content)


def checkpoints_in(output: Path) -> list[Path]:
    """Return the checkpoint folders of a Trainer's run, the last first, whole or not."""
    found = {path: _CHECKPOINT.fullmatch(path.name) for path in output.glob("checkpoint-*")}
    steps = {path: int(match[1]) for path, match in found.items() if match and path.is_dir()}
    return sorted(steps, key=steps.__getitem__, reverse=True)


def problem_of(folder: Path, follows: bool) -> str | None:
    """Return why a checkpoint cannot be gone on from, None if it can.

    :param follows: whether a recipe does, whose state is written last
    """
    for name in (_TRAINER_STATE, *([STATE_NAME] if follows else [])):
        if not (folder / name).is_file():
            return f"it has no {name}, as its run was killed when it wrote it, or had no recipe"
    try:
        json_of((folder / _TRAINER_STATE).read_bytes())
        if (folder / STATE_NAME).is_file():
            _require_whole(folder, read_torch_file(folder / STATE_NAME, check=True))
    except (OSError, ValueError, CheckpointError) as error:
        return one_line(error)
    return None


def _require_whole(folder: Path, content: Any) -> None:
    """Check that files are those that were there as the state of the recipe was written."""
    known = content.get("files", {}) if isinstance(content, dict) else {}
    for name, digest in known.items():
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing")
        if file_digest(folder / name) != digest:
            raise CheckpointError(
                f"{folder / name} is damaged: its bytes are not those that were written"
            )


def checkpoint_folder(args: TrainingArguments, step: int) -> Path:
    """Return where the Trainer has written the checkpoint of a step just now."""
    name, output = f"checkpoint-{step}", Path(args.output_dir)
    # in a search for hyper-parameters each trial has a folder of its own
    found = [output / name, *output.glob(f"*/{name}")]
    there = [folder for folder in found if folder.is_dir()]
    return max(there, key=lambda folder: folder.stat().st_mtime, default=found[0])


def resumed_from(
    args: TrainingArguments, state: TrainerState, told: str | os.PathLike[str] | None
) -> Path:
    """Return the checkpoint folder that the Trainer is going on from.

    A Trainer does not tell its callbacks. It is the folder whose ``trainer_state.json`` says what
    the Trainer's own state does.

    :param told: the folder, if the user has said so
    :raises CallbackError: if there is none
    """
    folders = [Path(told)] if told is not None else list(_places(args, state))
    for folder in folders:
        if _same_moment(folder / _TRAINER_STATE, state):
            return folder
    looked = ", ".join(str(folder) for folder in dict.fromkeys(folders))
    raise CallbackError(
        f"the Trainer goes on from step {state.global_step} of a checkpoint that is not at "
        f"{looked}: name its folder, SparseMLCallback(..., resume_from=FOLDER)"
    )


def read_state(folder: Path, manager: Any, model: nn.Module) -> None:
    """Bring an initialised manager, and the model's structure, to where a checkpoint was written.

    :raises CallbackError: if the checkpoint has no state of a recipe, or one of another recipe
    :raises CheckpointError: if the file is damaged
    """
    file = folder / STATE_NAME
    if not file.exists():
        raise CallbackError(
            f"{folder} has no {STATE_NAME}: it was written without SparseMLCallback, with "
            "save_only_model, or by a run that was killed as it wrote; go on from another "
            "checkpoint, or start anew"
        )
    content = read_torch_file(file, check=True)
    if not isinstance(content, dict) or not {"version", "recipe", "manager"} <= content.keys():
        raise CallbackError(f"{file} was not written by SparseMLCallback")
    if content["version"] > _VERSION:
        raise CallbackError(f"{file} was written by a later version of this package")
    _require_same_recipe(file, content["recipe"].splitlines(), _text(manager).splitlines())
    _require_whole(folder, content)
    state = unpack_masks(content["manager"])
    names = set(model.state_dict())
    try:
        manager.load_structure_state(model, state)
        if set(model.state_dict()) != names:
            # the Trainer has read the weights into layers that were not there then
            load_model_state(model, read_weights(folder), strict=False)
        manager.load_state_dict(state)
    except (IndexError, KeyError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CallbackError(f"{file} does not fit the model: {one_line(error)}") from error


def _text(manager: Any) -> str:
    return "\n".join(manager.to_string_lines(include_metadata=False))


def _require_same_recipe(file: Path, before: Iterable[str], now: Iterable[str]) -> None:
    for then, line in zip_longest(before, now, fillvalue="nothing"):
        if then != line:
            raise CallbackError(
                f"{file} is of another recipe: {then.strip()!r} there, {line.strip()!r} now; go on "
                "with the recipe of the run, which lies beside it as recipe.yaml, or start anew"
            )


def _places(args: TrainingArguments, state: TrainerState) -> Iterator[Path]:
    if isinstance(args.resume_from_checkpoint, str):
        yield Path(args.resume_from_checkpoint)
    yield checkpoint_folder(args, state.global_step)


def _same_moment(file: Path, state: TrainerState) -> bool:
    try:
        found = json_of(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    own = asdict(state)
    # as text, in which NaN is NaN
    return all(json.dumps(found.get(key)) == json.dumps(own[key]) for key in _TELLING)
