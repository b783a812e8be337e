"""A shrunk model in a folder: weights, and a small file of shapes and numbers of heads beside them.

The weights are a plain ``model.safetensors`` (of a model of transformers with its ``config.json``),
so that a few lines of torch read them too; see docs/faster_models.md.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.attributes import sizes_of
from sparseml.pytorch.units.slim_attention import make_slim
from sparseml.pytorch.utils.model import load_model_state, save_model
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module
from sparseml.pytorch.utils.saving.files import CheckpointError, read_safetensors
from sparseml.pytorch.utils.saving.resizing import replace_data
from sparseml.pytorch.utils.thinning import take_shapes
from sparseml.utils.atomic import atomic_path

SHAPES_FILE = "shrunk.json"
_WEIGHTS_FILE = "model.safetensors"
_FORMAT = 1


def save_shrunk(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Write a model whose layers have other sizes than its configuration says.

    A model of transformers is written by its own ``save_pretrained``, any other as
    ``model.safetensors``. Beside it comes ``shrunk.json`` with the shape of every tensor
    (``shapes``) and the sizes that modules keep as attributes (``attributes``).

    :return: the folder, which is made as needed
    """
    model, path = unwrap_module(model, root=True), Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    save: Any = getattr(model, "save_pretrained", None)
    if save is None:
        save_model(path / _WEIGHTS_FILE, model)
    else:
        # transformers 5 would write some models under the names that its release 4 gave to layers
        renames = "save_original_format" in inspect.signature(save).parameters
        save(path, **({"save_original_format": False} if renames else {}))
    sizes = {name: dict(sizes_of(module)) for name, module in canonical_named_modules(model)}
    content = {
        "format": _FORMAT,
        "shapes": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
        "attributes": {name: found for name, found in sizes.items() if found},
    }
    with atomic_path(path / SHAPES_FILE) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return path


def fill_shrunk(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Give ``model`` the shapes, sizes and weights of a folder of :func:`save_shrunk`, in place.

    :param model: as it was before it was shrunk, with any weights
    :raises FileNotFoundError: for a folder without the files
    :raises CheckpointError: for files that are damaged, or of another model
    """
    path = Path(folder)
    content, state = read_shapes(path), _read_weights(path)
    sizes = content["attributes"]
    modules = dict(canonical_named_modules(model))
    for name, module in modules.items():
        if isinstance(module, nn.MultiheadAttention):
            _slim_to_file(model, module, f"{name}." if name else "", state)
    for name, values in sizes.items():
        if name not in modules or not values.keys() <= sizes_of(modules[name]).keys():
            raise _other(path, f"its {SHAPES_FILE} gives {', '.join(values)} of {name!r}")
        for key, value in values.items():
            setattr(modules[name], key, value)
    take_shapes(model, content.get("shapes", {}))
    try:
        missing, unexpected = load_model_state(model, state)
    except RuntimeError as error:  # sizes that are larger, or in other dimensions
        raise _other(path, str(error).splitlines()[-1].strip()) from error
    # tied weights are written once
    tensors = model.state_dict(keep_vars=True)
    written = {id(tensors[name]) for name in state if name in tensors}
    lacking = [name for name in missing if id(tensors[name]) not in written]
    if lacking or unexpected:
        told = f"it lacks {lacking[0]!r}" if lacking else f"it holds {unexpected[0]!r}"
        raise _other(path, told)


def _other(folder: Path, told: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} holds another model than the one to fill, as that was before shrinking: {told}"
    )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / f"{_WEIGHTS_FILE}.index.json"
    names = {_WEIGHTS_FILE}
    if index.is_file():  # large models of transformers come in parts
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return {
        key: value for name in names for key, value in read_safetensors(folder / name)[0].items()
    }


def _slim_to_file(
    model: nn.Module, layer: nn.MultiheadAttention, prefix: str, state: Mapping[str, Tensor]
) -> None:
    for key, param in layer.named_parameters(recurse=False):
        stored = state.get(prefix + key)
        if stored is not None and stored.shape != param.shape:
            make_slim(model, layer)
            replace_data(param, torch.zeros_like(stored, dtype=param.dtype, device=param.device))


def read_shapes(folder: Path) -> dict[str, Any]:
    """Return the content of ``shrunk.json``.

    :raises FileNotFoundError: if there is none
    :raises CheckpointError: if it is damaged, or of another format
    """
    file = folder / SHAPES_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no shrunk model: there is no {SHAPES_FILE}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != _FORMAT or not isinstance(content.get("attributes"), dict):
        raise CheckpointError(f"{file} is not of format {_FORMAT}, found {found!r}")
    return content
