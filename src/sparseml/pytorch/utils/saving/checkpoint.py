"""Checkpoints that a training run continues from as if it had never stopped."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.lazy import lazy_names
from sparseml.pytorch.functional.masks import pack_mask, unpack_mask
from sparseml.pytorch.utils.model import model_state, told_structure
from sparseml.pytorch.utils.saving.files import (
    CheckpointError,
    previous_path,
    read_torch_file,
    write_torch_file,
)
from sparseml.pytorch.utils.saving.rng import get_rng_state

_LOGGER = logging.getLogger(__name__)
# what loads one gives models their structure back, so it stands above what knows of that
__getattr__, __dir__ = lazy_names(
    __name__, {"sparseml.pytorch.optim.loading": "CheckpointInfo load_checkpoint"}
)
_VERSION = 1
_VERSION_KEY = "checkpoint_version"
_PACKED_KEY = "__packed_mask__"


def _is_mask(value: Any) -> bool:
    if not isinstance(value, Tensor) or not value.numel() or value.is_complex():
        return False
    # a negative zero would lose its sign
    return bool(((value == 1) | ((value == 0) & ~torch.signbit(value))).all())


def pack_masks(state: Any) -> Any:
    """Return ``state`` with every tensor of zeros and ones stored in one bit per element.

    Goes through mappings, lists and tuples; everything else is kept as it is.
    :func:`unpack_masks` restores the same values, shapes and dtypes.
    """
    if _is_mask(state):
        bits, shape = pack_mask(state.detach().cpu())
        return {_PACKED_KEY: bits, "shape": list(shape), "dtype": str(state.dtype)}
    return _map_nested(state, pack_masks)


def unpack_masks(state: Any) -> Any:
    """Undo :func:`pack_masks`; the masks come on the CPU."""
    if isinstance(state, Mapping) and _PACKED_KEY in state:
        dtype = getattr(torch, state["dtype"].removeprefix("torch."))
        return unpack_mask(state[_PACKED_KEY], state["shape"], dtype)
    return _map_nested(state, unpack_masks)


def _map_nested(state: Any, function: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: function(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(function(value) for value in state)
    return state


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    optimizer: Any = None,
    manager: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    epoch: float | None = None,
    recipe: Any = None,
    rng: bool = True,
    extra: Any = None,
    keep_previous: bool = True,
) -> None:
    """Save all that a run needs to go on from here bit for bit, atomically.

    The file is one that ``load_model``, ``load_optimizer`` and ``load_epoch`` read too. Masks in
    the manager's state take one bit per weight. Write it between two optimizer steps.

    :param optimizer: the optimizer, or the wrapper that ``manager.modify`` returned
    :param manager: the initialised manager; its masks and counters are saved
    :param scheduler: anything else with ``state_dict``, such as a learning-rate scheduler
    :param scaler: the ``GradScaler`` of mixed precision
    :param epoch: where the run stands, for the caller's own use and for ``load_model``
    :param recipe: text of the recipe, the manager's own if None
    :param rng: also save the states of Python's, numpy's and torch's random generators
    :param extra: any plain data and tensors, such as the position in the data
    :param keep_previous: keep the file that is replaced as ``<path>.previous``, which
        :func:`load_checkpoint` falls back on
    """
    content: dict[str, Any] = {_VERSION_KEY: _VERSION, "state_dict": model_state(model)}
    content |= told_structure(model)
    parts = {"optimizer": optimizer, "scheduler": scheduler, "scaler": scaler}
    content |= {key: part.state_dict() for key, part in parts.items() if part is not None}
    if manager is not None:
        content["manager"] = pack_masks(manager.state_dict())
        recipe = manager if recipe is None else recipe
    if recipe is not None:
        content["recipe"] = str(recipe)
    if rng:
        content["rng"] = get_rng_state()
    content |= {"epoch": epoch, "extra": extra}
    write_torch_file(path, content, keep_previous=keep_previous)


def read_checkpoint(
    path: str | os.PathLike[str], map_location: Any = "cpu"
) -> tuple[dict[str, Any], Path]:
    """Return the content of the file, or of the one before it, and which of them it was.

    If the file is damaged, or a crash has left none, the one before it is read, with a warning, and
    the damaged one is renamed to ``<path>.damaged``.

    :raises FileNotFoundError: if there is no such file, nor one before it
    :raises CheckpointError: naming the file, if it is damaged (checksums are compared) and so is
        the one before it, or if it is no checkpoint
    """
    used = Path(path).expanduser()
    try:
        content = read_torch_file(used, map_location, check=True)
    except (CheckpointError, FileNotFoundError) as error:
        used = previous_path(path)
        if not used.exists():
            raise
        try:
            content = read_torch_file(used, map_location, check=True)
        except CheckpointError as second:
            raise CheckpointError(f"{error}; and so is the one before it: {second}") from error
        _LOGGER.warning("%s; going on from the checkpoint before it, %s", error, used)
        _put_aside(Path(path).expanduser())
    if not isinstance(content, dict) or _VERSION_KEY not in content:
        hint = "load_model reads files of weights"
        raise CheckpointError(f"{used} is no checkpoint of save_checkpoint; {hint}")
    if content[_VERSION_KEY] > _VERSION:
        formats = f"(format {content[_VERSION_KEY]}, this version reads up to {_VERSION})"
        raise CheckpointError(f"{used} was written by a later version of this package {formats}")
    return content, used


def _put_aside(damaged: Path) -> None:
    # else the next checkpoint would keep it, in the place of the whole one before it
    with suppress(OSError):  # another process did, or the folder can only be read
        damaged.replace(damaged.with_name(f"{damaged.name}.damaged"))
