"""Saving and loading models, with the recipe, epoch and optimizer that belong to them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Size, Tensor, nn
from torch.optim import Optimizer

from sparseml.lazy import lazy_names
from sparseml.pytorch.utils.names import canonical_name, strip_wrapper_levels, unwrap_module
from sparseml.pytorch.utils.saving.files import (
    CheckpointError,
    is_safetensors,
    read_safetensors,
    read_torch_file,
    write_safetensors,
    write_torch_file,
)
from sparseml.pytorch.utils.thinning import thin_model_from_checkpoint
from sparseml.utils.plain import json_of
from sparseml.utils.text import few

__all__ = [
    "CheckpointError",
    "load_epoch",
    "load_model_state",
    "load_optimizer",
    "model_state",
    "read_model_file",
    "save_model",
    "thin_model_from_checkpoint",
]
_MOVED = (
    "device_to_name_ids is_parallel_model load_model model_to_device parallelize_model "
    "script_model trace_model"
)
__all__ += _MOVED.split()
__getattr__, __dir__ = lazy_names(__name__, {"sparseml.pytorch.utils": _MOVED})

_PathLike = str | os.PathLike[str]
_SAFETENSORS_KEYS = ("recipe", "epoch", "arch_key")
_STRUCTURE_KEY = "structure"
_told: list[Callable[[nn.Module], Mapping[str, Any]]] = []


def tell_in_files(tell: Callable[[nn.Module], Mapping[str, Any]]) -> None:
    """Let files of models hold what ``tell`` says of them, as plain data: nothing of most."""
    _told.append(tell)


def shapes_of(state: Mapping[str, Any]) -> dict[str, Size]:
    """Return the shapes of the tensors in a state dict; modules may have put in anything else."""
    return {key: value.shape for key, value in state.items() if isinstance(value, Tensor)}


def told_structure(model: nn.Module) -> dict[str, Any]:
    """Return what a file of a model holds of its structure beside the weights, under its key."""
    found = {key: value for tell in _told for key, value in tell(model).items()}
    return {_STRUCTURE_KEY: found} if found else {}


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state dict on the CPU, dtypes kept, without levels added by wrappers.

    :raises ValueError: naming tensors on the meta device, which have no values
    """
    state = unwrap_module(model).state_dict()
    if empty := [key for key, one in state.items() if isinstance(one, Tensor) and one.is_meta]:
        raise ValueError(f"tensors on the meta device have no values to save: {few(empty)}")
    return {
        strip_wrapper_levels(key): value.detach().cpu() if isinstance(value, Tensor) else value
        for key, value in state.items()
    }


def save_model(
    path: _PathLike,
    model: nn.Module,
    optimizer: Optimizer | None = None,
    recipe: Any = None,
    epoch: float | None = None,
    use_zipfile_serialization_if_available: bool = True,
    include_modifiers: bool = False,
    arch_key: str | None = None,
) -> None:
    """Save a model, and what else is given, atomically; folders are made as needed.

    The file is a dict with ``state_dict`` and, where given, ``optimizer``, ``recipe``, ``epoch``,
    ``manager`` and ``arch_key``; of a model that has lost units, also ``structure``, the numbers of
    heads and the like that weights do not tell. A path ending in ``.safetensors`` gets the state
    dict in that format, with recipe, epoch, arch key and structure as texts in its header.

    :param recipe: text of the recipe that the model was made with, or its manager
    :param include_modifiers: also save the state of the manager that drives ``optimizer``
    :raises ValueError: for a safetensors file with an optimizer, modifiers or what else is no
        tensor, which it cannot hold, for tensors on the meta device, and for ``include_modifiers``
        with an optimizer that no manager drives
    """
    text, structure = None if recipe is None else str(recipe), told_structure(model)
    extras = {"recipe": text, "epoch": epoch, "arch_key": arch_key}
    extras = {key: value for key, value in extras.items() if value is not None}
    if is_safetensors(path):
        if optimizer is not None or include_modifiers:
            raise ValueError(f"a safetensors file cannot hold an optimizer or modifiers: {path}")
        # the header holds texts only
        header = {key: str(value) for key, value in extras.items()}
        header |= {key: json.dumps(value) for key, value in structure.items()}
        state = model_state(model)
        if others := [key for key, value in state.items() if not isinstance(value, Tensor)]:
            raise ValueError(f"a safetensors file holds tensors only, not {few(others)}: {path}")
        write_safetensors(path, state, {"format": "pt", **header})
        return
    content: dict[str, Any] = {"state_dict": model_state(model), **extras, **structure}
    if optimizer is not None:
        content["optimizer"] = optimizer.state_dict()
    if include_modifiers:
        content["manager"] = _manager_state(optimizer)
    write_torch_file(path, content, zipped=use_zipfile_serialization_if_available)


def _manager_state(optimizer: Any) -> Any:
    for attribute in ("wrapped_manager", "manager"):
        manager = getattr(optimizer, attribute, None)
        if manager is not None:
            return manager.state_dict()
    raise ValueError(
        "include_modifiers needs an optimizer driven by a manager (manager.modify or "
        f"ScheduledOptimizer), found {type(optimizer).__name__}"
    )


def read_model_file(path: _PathLike, map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a model file as a dict with at least ``state_dict``.

    Takes what :func:`save_model` writes, and bare state dicts in torch's or safetensors format.

    :raises CheckpointError: if the file is damaged, holds pickled classes, or no state dict
    """
    if is_safetensors(path):
        tensors, header = read_safetensors(path, map_location)
        content: dict[str, Any] = {k: header[k] for k in _SAFETENSORS_KEYS if k in header}
        if "epoch" in content:
            content["epoch"] = float(content["epoch"])
        if _STRUCTURE_KEY in header:
            try:
                content[_STRUCTURE_KEY] = json_of(header[_STRUCTURE_KEY])
            except ValueError as error:
                raise CheckpointError(f"{path}: its structure is no JSON: {error}") from error
        return {"state_dict": tensors, **content}
    loaded = read_torch_file(path, map_location)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        return dict(loaded)
    if isinstance(loaded, Mapping) and any(isinstance(v, Tensor) for v in loaded.values()):
        return {"state_dict": dict(loaded)}
    what = f"the keys {few(loaded, 8)}" if isinstance(loaded, Mapping) else type(loaded).__name__
    raise CheckpointError(f"{path} holds no state dict, found {what}")


def load_model_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    strict: bool = False,
    ignore_error_tensors: Iterable[str] | None = None,
    fix_data_parallel: bool = True,
) -> Any:
    """Load a state dict into ``model`` as :func:`load_model` does with that of a file."""
    own = model.state_dict()
    if fix_data_parallel:
        state = _match_names(state, own)
    tolerated = {canonical_name(name) for name in ignore_error_tensors or ()}
    if strict:
        _check_names(model, set(own), set(state), tolerated)  # before anything is changed
    thin_model_from_checkpoint(model, state)
    own = model.state_dict()
    kept = {
        key: value
        for key, value in state.items()
        if canonical_name(key) not in tolerated
        or (key in own and shapes_of({key: own[key]}) == shapes_of({key: value}))
    }
    # copying onto the meta device would do nothing
    assign = any(isinstance(value, Tensor) and value.is_meta for value in own.values())
    return model.load_state_dict(kept, strict=False, assign=assign)


def _check_names(model: nn.Module, own: set[str], given: set[str], tolerated: set[str]) -> None:
    missing = sorted(key for key in own - given if canonical_name(key) not in tolerated)
    unexpected = sorted(key for key in given - own if canonical_name(key) not in tolerated)
    if missing or unexpected:
        kind = type(unwrap_module(model)).__name__
        what = f"missing {few(missing)}, unexpected {few(unexpected)}"
        raise RuntimeError(f"the weights do not fit {kind}: {what}")


def _match_names(state: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of ``state`` to the model's own where only wrapper levels differ."""
    by_canonical = {canonical_name(key): key for key in own}
    return {
        key if key in own else by_canonical.get(canonical_name(key), key): value
        for key, value in state.items()
    }


def load_optimizer(path: _PathLike, optimizer: Optimizer, map_location: Any = "cpu") -> None:
    """Load the optimizer state that :func:`save_model` stored; a CheckpointError if it cannot."""
    content = read_model_file(path, map_location)
    if "optimizer" not in content:
        raise CheckpointError(f"{path} holds no optimizer state, found {few(sorted(content), 8)}")
    optimizer.load_state_dict(content["optimizer"])


def load_epoch(path: _PathLike, map_location: Any = "cpu") -> float | None:
    """Return the epoch that :func:`save_model` stored, None if there is none."""
    return read_model_file(path, map_location).get("epoch")
