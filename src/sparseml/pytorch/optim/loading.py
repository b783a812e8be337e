"""Loading models and checkpoints, also of models whose structure a recipe has changed."""

from __future__ import annotations

import math
import os
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.units.attributes import COUNTS, sizes_of
from sparseml.pytorch.units.saved import restore_structure
from sparseml.pytorch.utils.layer_kinds import OUTPUTS, tensor_axes
from sparseml.pytorch.utils.model import (
    CheckpointError,
    load_model_state,
    read_model_file,
    shapes_of,
)
from sparseml.pytorch.utils.names import canonical_name, canonical_named_modules, unwrap_module
from sparseml.pytorch.utils.saving.checkpoint import read_checkpoint, unpack_masks
from sparseml.pytorch.utils.saving.rng import set_rng_state


class CheckpointInfo(NamedTuple):
    """What :func:`load_checkpoint` leaves to its caller."""

    epoch: float | None
    recipe: str | None
    extra: Any
    path: Path
    """The file that was read: the previous one, if the last was damaged."""


def load_model(
    path: str | os.PathLike[str],
    model: nn.Module,
    strict: bool = False,
    ignore_error_tensors: Iterable[str] | None = None,
    fix_data_parallel: bool = True,
) -> Any:
    """Load the weights of a file into ``model``, changing its structure first where needed.

    Only tensors and plain data are read (``weights_only=True``): a file with a whole pickled
    module is refused. If the file holds a recipe, its structural modifiers are applied to the
    model as at the stored epoch (as after the last one if none is stored); then layers that are
    smaller in the file (thinned) are shrunk. What ``save_model`` wrote of a model that has lost
    heads, channels or neurons says how many are left, so the outputs are those of before.

    :param path: what ``save_model`` or ``save_checkpoint`` wrote, a bare state dict, or a
        ``.safetensors`` file
    :param strict: demand that the names of model and file agree
    :param ignore_error_tensors: names that may be missing, unexpected or of another shape
    :param fix_data_parallel: ignore levels that wrappers (DDP, ``torch.compile``) add to names
    :return: torch's record of ``missing_keys`` and ``unexpected_keys``
    :raises CheckpointError: naming the file, if it is damaged, unsafe to read or no model file, or
        if attention is narrower in it and it does not say of how many heads
    :raises RuntimeError: when shapes differ or, with ``strict``, names
    """
    content = read_model_file(path)
    if content.get("recipe"):
        epoch = content.get("epoch")
        manager = ScheduledModifierManager.from_yaml(content["recipe"])
        manager.apply_structure(model, math.inf if epoch is None or epoch == -1 else epoch)
    _restore(path, model, content, {canonical_name(name) for name in ignore_error_tensors or ()})
    how = (strict, ignore_error_tensors, fix_data_parallel)
    return load_model_state(model, content["state_dict"], *how)


def load_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    *,
    optimizer: Any = None,
    manager: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    rng: bool = True,
    strict: bool = True,
    map_location: Any = "cpu",
) -> CheckpointInfo:
    """Put a run back to where :func:`save_checkpoint` left it.

    Build model, optimizer and manager as at the start of the run and let the manager ``modify``
    them (which initialises it); then call this. Each of them that is given is restored; the
    random generators come last. If the file is damaged, or a crash has left none, the one before
    it is used, with a warning, and the damaged one is renamed to ``<path>.damaged``. Of a model
    that has lost heads, channels or neurons, ``model`` may be as it was before, or as small.

    :param rng: restore the random generators, if the file has their states
    :param strict: demand that the names of the model and of the manager's modifiers agree
    :return: epoch, recipe and extra as saved
    :raises FileNotFoundError: if there is no such file, nor one before it
    :raises CheckpointError: naming the file, if it is damaged (checksums are compared) and so is
        the one before it, if it lacks something that is asked for, or if the model is another one,
        or attention is narrower in the file and it does not say of how many heads
    """
    content, used = read_checkpoint(path, map_location)
    asked = {"optimizer": optimizer, "manager": manager, "scheduler": scheduler, "scaler": scaler}
    lacking = [key for key, part in asked.items() if part is not None and key not in content]
    if lacking:
        raise CheckpointError(f"{used} holds no state of: {', '.join(lacking)}")
    manager_state = unpack_masks(content.get("manager"))
    if manager is not None:
        manager.load_structure_state(model, manager_state)
    _restore(used, model, content)
    load_model_state(model, content["state_dict"], strict=strict)
    if manager is not None:
        manager.load_state_dict(manager_state, strict=strict)
    # after the manager: applying masks touches the optimizer's state
    for key in ("optimizer", "scheduler", "scaler"):
        if asked[key] is not None:
            asked[key].load_state_dict(content[key])
    if rng and "rng" in content:
        set_rng_state(content["rng"])
    return CheckpointInfo(content.get("epoch"), content.get("recipe"), content.get("extra"), used)


def _restore(
    path: str | os.PathLike[str],
    model: nn.Module,
    content: Mapping[str, Any],
    tolerated: Container[str] = (),
) -> None:
    """Give a model the numbers of heads and the like that a file tells of.

    :raises CheckpointError: if it tells of another model's, or of none where heads have gone
    """
    held = shapes_of(content["state_dict"])
    shapes = {canonical_name(key): list(shape) for key, shape in held.items()}
    structure = content.get("structure")
    if isinstance(structure, Mapping) and "attributes" in structure:
        try:
            restore_structure(model, {**structure, "shapes": shapes})
        except ValueError as error:
            raise CheckpointError(f"{path} is of another model: {error}") from error
        return
    for name, module in canonical_named_modules(unwrap_module(model, root=True)):
        counts = [one for one in COUNTS["heads"] if one in sizes_of(module)]
        makes = ((key, layer) for key, layer in module.named_children() if _computes(layer))
        key, layer = next(makes, ("", module))
        weight = ".".join(filter(None, (name, key, "weight")))
        if not counts or not key or weight in tolerated:
            continue
        axis = tensor_axes(layer)["weight"].index(OUTPUTS)
        old: Any = layer.weight.shape
        new = shapes.get(weight)
        if new is not None and len(new) == len(old) and new[axis] < old[axis]:
            raise CheckpointError(
                f"{path}: {weight.removesuffix('.weight')} has {new[axis]} outputs, {old[axis]} in "
                f"the model, and nothing tells how many heads ({counts[0]}) these are; write the "
                "smaller model by save_model, or by save_shrunk and read it by load_shrunk"
            )


def _computes(layer: nn.Module) -> bool:
    return bool(tensor_axes(layer)) and not isinstance(layer, nn.Embedding)
