"""Models as runs leave them, and others, to be exported or timed."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparseml.cli.model_source import build_model
from sparseml.cli.problems import Problem
from sparseml.pytorch.optim.loading import load_model as load_model_file
from sparseml.pytorch.units.loaded import load_shrunk
from sparseml.pytorch.units.probing import sample_inputs, with_values
from sparseml.pytorch.units.saved import holds_shrunk, read_shapes
from sparseml.pytorch.utils.saving.files import read_safetensors
from sparseml.report.run_directory import RUN_FILES, SHRUNK_FOLDER, is_run
from sparseml.run.errors import RunError
from sparseml.utils.plain import json_of
from sparseml.utils.references import described

_WEIGHTS, _MODEL = "model.safetensors", "model"


def load_finished(source: str, variant: str | None = None) -> nn.Module:
    """Return a model in eval mode, with memory for its weights.

    :param source: the folder of a run, of a shrunk model or of a model of transformers; or a
        source as for ``recipe check --model``, of which only the structure counts
    :param variant: of a run: ``shrunk``, without what is zero as a whole, or ``sparse``; by default
        the first of these that there is. They are one where the run removed units
    :raises Problem: if there is no such model, or it cannot be loaded
    """
    folder = Path(source).expanduser()
    if not folder.exists() and ":" in source:
        return with_values(build_model(source)).eval()
    if not folder.is_dir():
        raise Problem(
            f"{source}: no such folder of a run or of a model; others are timm:NAME, hf:DIR and "
            "module.path:callable"
        )
    try:
        return _from_folder(folder, variant).eval()
    except Problem:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, RunError) as error:
        raise Problem(f"{source}: the model cannot be loaded: {described(error)}") from error


def load_dense(folder: str) -> nn.Module:
    """Return the model that the pruning of a run started from, with any weights.

    :raises Problem: if the folder holds no run, or its model cannot be built
    """
    path = Path(folder).expanduser()
    if not is_run(path):
        raise Problem(f"{folder} holds no run, so that nothing says what pruning started from")
    name = str(_settings(path).get("model"))
    try:
        if name.startswith("hf:"):
            return load_finished(name.removeprefix("hf:"))
        return _of_timm(path, None).eval()
    except (OSError, RuntimeError, ValueError, RunError) as error:
        raise Problem(f"{folder}: {name} cannot be built: {described(error)}") from error


def inputs_for(model: nn.Module, source: str, batch: int, length: int = 128) -> Any:
    """Return a batch of noise, or of any words, that the model takes.

    :param length: of texts, in tokens; as many as the model takes, if that is fewer
    :raises Problem: for a model that does not say what it takes, and a batch beyond all memory
    """
    try:
        inputs = sample_inputs(model)
        return _of_size(model, inputs, batch, length)
    except ValueError as error:
        raise Problem(f"{source}: {error}") from error
    except RuntimeError as error:  # what torch says of memory
        raise Problem(f"--batch {batch}: {str(error).splitlines()[0]}") from error


def _of_size(model: nn.Module, inputs: Any, batch: int, length: int) -> Any:
    if isinstance(inputs, Tensor):
        return _tiled(inputs, batch, 0)
    most = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    length = min(length, most) if isinstance(most, int) and most > 0 else length
    return {
        name: _tiled(_tiled(one, batch, 0), length, 1) if "ids" in name else _tiled(one, batch, 0)
        for name, one in inputs.items()
    }


def _tiled(tensor: Tensor, size: int, dim: int) -> Tensor:
    repeats = [1] * tensor.ndim
    repeats[dim] = -(-size // tensor.shape[dim])
    return tensor.repeat(repeats).narrow(dim, 0, size)


def _from_folder(folder: Path, variant: str | None) -> nn.Module:
    if holds_shrunk(folder):
        model = load_shrunk(folder)
        run = folder.parent
        return _sized(model, run) if folder.name == SHRUNK_FOLDER and is_run(run) else model
    if not is_run(folder):
        return _of_transformers(folder)
    if variant != "sparse" and holds_shrunk(folder / SHRUNK_FOLDER):
        return _from_folder(folder / SHRUNK_FOLDER, None)
    if variant == "shrunk":
        raise Problem(f"{folder} holds no shrunk model: nothing was zero as a whole")
    if (folder / _MODEL).is_dir():  # as its library keeps it
        return _from_folder(folder / _MODEL, None)
    if not (folder / _WEIGHTS).is_file():
        raise Problem(f"{folder} holds no {_WEIGHTS}: the run has not finished")
    if str(_settings(folder).get("model")).startswith("fairseq:"):
        raise Problem(f"{folder}: models of fairseq are loaded by fairseq-generate")
    if _lost_units(folder):
        return _from_folder(folder / SHRUNK_FOLDER, None)
    return _of_timm(folder, folder / _WEIGHTS)


def _lost_units(run: Path) -> bool:
    """Whether the model had no more than the shrunk one has when its run ended."""
    if not holds_shrunk(run / SHRUNK_FOLDER):
        return False
    shapes = read_shapes(run / SHRUNK_FOLDER).get("shapes", {})
    weights, _ = read_safetensors(run / _WEIGHTS)
    return all(list(value.shape) == shapes.get(name) for name, value in weights.items())


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / RUN_FILES["config"]
    try:
        found = json_of(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Problem(f"{file} cannot be read: {error}") from error
    return found if isinstance(found, dict) else {}


def _of_timm(folder: Path, weights: Path | None) -> nn.Module:
    # named and not imported, as it imports timm
    glue = import_module("sparseml.timm.shrunk")
    model: nn.Module = glue.of_settings(folder, _settings(folder))
    if weights is not None:
        load_model_file(weights, model)
    return _sized(model, folder)


def _sized(model: nn.Module, run: Path) -> nn.Module:
    """Let a model of images say the size that it had in its run, as any may do for it."""
    if getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None):
        import_module("sparseml.timm.shrunk").note_input_size(model, _settings(run))
    return model


def _of_transformers(folder: Path) -> nn.Module:
    if not (folder / "config.json").is_file():
        raise Problem(f"{folder} holds neither a run nor a model: no run.json, no config.json")
    from sparseml.transformers.shrunk import build, with_weights

    model = build(folder)
    loaded, missing = with_weights(type(model), str(folder), model.config)
    if missing:
        raise Problem(f"{folder} holds no weights for {missing[0]}")
    return loaded
