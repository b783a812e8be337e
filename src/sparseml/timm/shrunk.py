"""Models of timm, and of the user, as they were before they were shrunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sparseml.pytorch.utils.saving.files import CheckpointError
from sparseml.run.errors import RunError
from sparseml.timm.models import INPUT_KEYS, data_config, load_model


def build(folder: Path, told: Mapping[str, Any] | None) -> nn.Module:
    """Return a model by its name and keywords, with random weights.

    :param told: ``name``, as for ``sparseml train --model``, ``kwargs``, and ``split_qkv``, whether
        attention was given separate layers
    :raises CheckpointError: if there is no such model, or it cannot be built
    """
    told = told or {}
    try:
        kwargs = told.get("kwargs", {})
        split = bool(told.get("split_qkv"))
        return load_model(str(told.get("name")), None, False, split, kwargs, ("built_by", ""))
    except RunError as error:
        hint = "give load_shrunk the model as it was before it was shrunk"
        raise CheckpointError(f"{folder}: {error}; {hint}") from error


def of_settings(folder: Path, settings: Mapping[str, Any]) -> nn.Module:
    """Return the model that the settings of a run name, with random weights.

    :raises CheckpointError: if there is no such model, or it cannot be built
    """
    kwargs = {key: settings.get(key) for key in ("num_classes", "in_chans")}
    kwargs |= settings.get("model_kwargs") or {}
    told = {"name": settings.get("model"), "kwargs": kwargs, "split_qkv": settings.get("split_qkv")}
    return build(folder, told)


def note_input_size(model: nn.Module, settings: Mapping[str, Any]) -> None:
    """Let a model's ``pretrained_cfg`` have the size of images that a run has shown it."""
    size = data_config(model, {key: settings.get(key) for key in INPUT_KEYS})["input_size"]
    usual = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    model.pretrained_cfg = {**dict(usual), "input_size": tuple(size)}  # type: ignore[assignment]
