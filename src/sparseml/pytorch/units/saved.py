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

from torch import Tensor, nn

from sparseml.pytorch.units.attributes import constants_of, sizes_of
from sparseml.pytorch.units.origins import attributes_of, origins_of, set_origins
from sparseml.pytorch.units.slim_attention import SlimAttention, make_slim
from sparseml.pytorch.utils.model import load_model_state, save_model, shapes_of
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module
from sparseml.pytorch.utils.saving.files import CheckpointError, files_of_index, read_safetensors
from sparseml.pytorch.utils.thinning import take_shapes
from sparseml.utils.atomic import atomic_path
from sparseml.utils.plain import json_of
from sparseml.utils.text import few

SHAPES_FILE = "shrunk.json"
_WEIGHTS_FILE = "model.safetensors"
_FORMAT = 1
_BUILT_BY = "built_by"


def structure_of(model: nn.Module) -> dict[str, Any]:
    """Return what a model's weights do not tell of its structure, as plain data.

    :return: ``shapes`` of all tensors, ``attributes`` (sizes and scales that modules keep), and
        ``units``, what there was before units went (see :mod:`~sparseml.pytorch.units.origins`)
    """
    model = unwrap_module(model, root=True)
    return {
        "shapes": {name: list(shape) for name, shape in shapes_of(model.state_dict()).items()},
        "attributes": attributes_of(model),
        "units": origins_of(model),
    }


def restore_structure(model: nn.Module, structure: Mapping[str, Any]) -> None:
    """Give a model the structure of :func:`structure_of`, before it is given the weights.

    Layers that know their own sizes take them from the weights.

    :param model: as it was before units went from it, or later
    :raises ValueError: for the structure of another model; this one is unchanged then
    """
    model = unwrap_module(model, root=True)
    modules, shapes = dict(canonical_named_modules(model)), structure.get("shapes", {})
    for name, values in structure.get("attributes", {}).items():
        module = modules.get(name)
        known = set() if module is None else {*sizes_of(module), *constants_of(module)}
        if lacking := sorted(values.keys() - known):
            where = f"no {few(lacking)} in" if module is not None else "no module"
            raise ValueError(f"{type(model).__name__} has {where} {name!r}")
    for name, module in modules.items():
        if isinstance(module, nn.MultiheadAttention) and not isinstance(module, SlimAttention):
            prefix = f"{name}." if name else ""
            params = module.named_parameters(recurse=False)
            if any(shapes.get(prefix + key, list(p.shape)) != list(p.shape) for key, p in params):
                make_slim(model, module)
    for name, values in structure.get("attributes", {}).items():
        for key, value in values.items():
            setattr(modules[name], key, value)
    take_shapes(model, shapes)
    set_origins(model, structure.get("units", {}))


def save_shrunk(
    model: nn.Module,
    folder: str | os.PathLike[str],
    built_by: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model whose layers have other sizes than its configuration says.

    A model of transformers is written by its own ``save_pretrained``, any other as
    ``model.safetensors``. Beside it comes ``shrunk.json`` with the shape of every tensor
    (``shapes``), the sizes and scales that modules keep as attributes (``attributes``), and which
    units of how many are left (``units``).

    :param built_by: how ``load_shrunk`` builds the model as it was before, for one of timm's
        ``{"library": "timm", "name": NAME, "kwargs": {...}}``; the name and the number of classes
        are taken from the model where nothing is given
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
    write_structure(model, path, built_by)
    return path


def write_structure(
    model: nn.Module, folder: Path, built_by: Mapping[str, Any] | None = None
) -> None:
    """Write ``shrunk.json`` beside the weights of a model; arguments as of :func:`save_shrunk`."""
    model = unwrap_module(model, root=True)
    content = {"format": _FORMAT, **structure_of(model)}
    if built := (built_by or _built_by_timm(model)):
        content[_BUILT_BY] = dict(built)
    lines = ",\n".join(f" {json.dumps(key)}: {_text(value)}" for key, value in content.items())
    with atomic_path(folder / SHAPES_FILE) as part:
        part.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def fill_shrunk(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Give ``model`` the shapes, sizes and weights of a folder of :func:`save_shrunk`, in place.

    :param model: as it was before it was shrunk, with any weights
    :raises FileNotFoundError: for a folder without the files
    :raises CheckpointError: for files that are damaged, or of another model
    """
    path = Path(folder)
    content, state = read_shapes(path), _read_weights(path)
    # of weights in another file than that of the shapes, what is in the file counts
    shapes = content.get("shapes", {}) | {key: list(value.shape) for key, value in state.items()}
    try:
        restore_structure(model, {**content, "shapes": shapes})
        missing, unexpected = load_model_state(model, state)
    except (RuntimeError, ValueError) as error:  # sizes that are larger, or in other dimensions
        raise _other(path, str(error).splitlines()[-1].strip()) from error
    # tied weights are written once
    tensors = model.state_dict(keep_vars=True)
    written = {id(tensors[name]) for name in state if name in tensors}
    lacking = [name for name in missing if id(tensors[name]) not in written]
    if lacking or unexpected:
        told = f"it lacks {lacking[0]!r}" if lacking else f"it holds {unexpected[0]!r}"
        raise _other(path, told)


def holds_shrunk(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is one of :func:`save_shrunk`."""
    return (Path(folder).expanduser() / SHAPES_FILE).is_file()


def read_shapes(folder: Path) -> dict[str, Any]:
    """Return the content of ``shrunk.json``.

    :raises FileNotFoundError: if there is none
    :raises CheckpointError: if it is damaged, or of another format
    """
    file = folder / SHAPES_FILE
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no shrunk model: there is no {SHAPES_FILE}")
    try:
        content = json_of(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != _FORMAT or not isinstance(content.get("attributes"), dict):
        raise CheckpointError(f"{file} is not of format {_FORMAT}, found {found!r}")
    return content


def _other(folder: Path, told: str) -> CheckpointError:
    return CheckpointError(
        f"{folder} holds another model than the one to fill, as that was before shrinking: {told}"
    )


def _text(value: Any) -> str:
    """JSON with a line for each entry, and the many numbers of one in that line."""
    if not isinstance(value, Mapping):
        return json.dumps(value)
    lines = [f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in value.items()]
    return "{\n" + ",\n".join(lines) + "\n }" if lines else "{}"


def _built_by_timm(model: nn.Module) -> dict[str, Any]:
    told = getattr(model, "pretrained_cfg", None)
    name = told.get("architecture") if isinstance(told, Mapping) else None
    if not name or not type(model).__module__.startswith("timm."):
        return {}
    kwargs = {"num_classes": model.num_classes} if hasattr(model, "num_classes") else {}
    return {"library": "timm", "name": name, "kwargs": kwargs}


def _read_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / f"{_WEIGHTS_FILE}.index.json"
    names = {_WEIGHTS_FILE}
    if index.is_file():  # large models of transformers come in parts
        names = {*files_of_index(index)}
    return {
        key: value for name in names for key, value in read_safetensors(folder / name)[0].items()
    }
