"""Shrunk models from their folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from torch import nn

from sparseml.pytorch.units.saved import fill_shrunk, read_shapes

_CONFIG_FILE = "config.json"


def load_shrunk(
    folder: str | os.PathLike[str], builder: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Return the model that :func:`sparseml.pytorch.shrink.save_shrunk` wrote, in eval mode.

    :param builder: returns the model as it was before it was shrunk, with any weights. None for a
        model of transformers, which is built by its ``config.json``
    :raises FileNotFoundError: for a folder without a shrunk model, or without a ``config.json``
        where there is no builder
    :raises CheckpointError: for files that are damaged, or of another model
    :raises ValueError: for a ``config.json`` that names no model of transformers
    """
    path = Path(folder)
    read_shapes(path)  # first, as it says best what is wrong
    model = _build(path) if builder is None else builder()
    fill_shrunk(model, path)
    return model.eval()


def _build(folder: Path) -> nn.Module:
    if not (folder / _CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} has no {_CONFIG_FILE}, so give load_shrunk a builder: a function that "
            "returns the model as it was before it was shrunk"
        )
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(folder))
    name = next(iter(config.architectures or []), None)
    kind = getattr(transformers, name or "", None)
    if kind is None:
        raise ValueError(
            f"{folder / _CONFIG_FILE}: architectures must begin with a model of transformers, "
            f"found {name!r}; give load_shrunk a builder"
        )
    model: nn.Module = kind(config)
    return model if config.dtype is None else model.to(config.dtype)
