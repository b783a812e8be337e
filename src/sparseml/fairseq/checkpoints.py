"""What a recipe adds to the checkpoints of fairseq, and reading it back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

from sparseml.fairseq.errors import FairseqError
from sparseml.pytorch.utils.saving.checkpoint import pack_masks, unpack_masks
from sparseml.run.errors import one_line
from sparseml.utils.atomic import atomic_path

STATE_KEY = "sparseml"
"""The key of a checkpoint's ``extra_state`` that holds the state of a recipe."""
UNITS_KEY = "sparseml_units"
"""The key for what units a model had before some went (see ``sparseml.pytorch.units.origins``)."""
_VERSION = 1


def begins_anew(cfg: Any, trainer: Any) -> bool:
    """Return whether fairseq starts with the first epoch, whatever it loads; to be asked before.

    :param cfg: fairseq's settings of checkpoints
    """
    if cfg.reset_dataloader:
        return True
    last = os.path.join(cfg.save_dir, f"checkpoint_last{trainer.checkpoint_suffix}.pt")
    is_default = cfg.restore_file == "checkpoint_last.pt"
    goes_on = os.path.exists(last) or getattr(cfg, "continue_once", None) is not None
    return is_default and cfg.finetune_from_model is not None and not goes_on


@contextmanager
def batches_as_before(trainer: Any, use: bool) -> Iterator[None]:
    """Let a checkpoint that is loaded be gone on from with the very batches of its run.

    Most tasks put batches together once, by a seed that the first epoch tells. A run that fairseq
    goes on with does so by that of its own first epoch, and trains on other batches.

    :param use: whether the checkpoint is gone on from
    """
    load, batch, told = trainer.load_checkpoint, trainer.task.get_batch_iterator, []

    def loading(*args: Any, **kwargs: Any) -> Any:
        extra_state = load(*args, **kwargs)
        told.append(((extra_state or {}).get(STATE_KEY) or {}).get("batches_of") if use else None)
        return extra_state

    def batching(*args: Any, **kwargs: Any) -> Any:
        if told and told[-1] is not None:
            kwargs["epoch"] = told[-1]
        return batch(*args, **kwargs)

    trainer.load_checkpoint, trainer.task.get_batch_iterator = loading, batching
    try:
        yield
    finally:
        trainer.load_checkpoint, trainer.task.get_batch_iterator = load, batch


@contextmanager
def copies_whole() -> Iterator[None]:
    """Let the files that fairseq copies, as ``checkpoint_last.pt``, be whole or absent."""
    from fairseq.checkpoint_utils import PathManager

    def copy(source: str, target: str, *args: Any, **kwargs: Any) -> bool:
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
        return True

    before = PathManager.copy
    PathManager.copy = staticmethod(copy)
    try:
        yield
    finally:
        PathManager.copy = staticmethod(before)


def packed_state(manager: Any) -> dict[str, Any]:
    """Return the state of a manager with masks of one bit per weight, and its recipe."""
    state = manager.state_dict()
    return {"version": _VERSION, "recipe": _text(manager), "manager": pack_masks(state)}


def load_packed_state(manager: Any, state: Mapping[str, Any], recipe: str) -> None:
    """Bring an initialised manager to where :func:`packed_state` was taken.

    :param recipe: its name, for errors
    :raises FairseqError: for another recipe, or another model
    """
    if state["version"] > _VERSION:
        raise FairseqError("the checkpoint was written by a later version of sparseml")
    lines = zip_longest(
        state["recipe"].splitlines(), _text(manager).splitlines(), fillvalue="nothing"
    )
    for then, now in lines:
        if then != now:
            raise FairseqError(
                f"the checkpoint is of another recipe than {recipe}: {then.strip()!r} there, "
                f"{now.strip()!r} now; go on with the recipe of the run, or begin anew with its "
                "weights by --finetune-from-model FILE and another --save-dir"
            )
    try:
        manager.load_state_dict(unpack_masks(state["manager"]))
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        raise FairseqError(f"the checkpoint does not fit {recipe}: {one_line(error)}") from error


def _text(manager: Any) -> str:
    return "\n".join(manager.to_string_lines(include_metadata=False))
