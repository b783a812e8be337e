"""Shrunk models from their folders, built as they were before units went."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sparseml.pytorch.units.saved import fill_shrunk, read_shapes
from sparseml.pytorch.utils.saving.files import CheckpointError

_CONFIG_FILE = "config.json"
# named and not imported, as each of them imports its library
_GLUE = {"transformers": "sparseml.transformers.shrunk", "timm": "sparseml.timm.shrunk"}


def load_shrunk(
    folder: str | os.PathLike[str],
    builder: nn.Module | Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """Return the model that :func:`sparseml.pytorch.shrink.save_shrunk` wrote, in eval mode.

    What was removed from it before is known of it, so that a recipe can go on removing.

    :param builder: the model as it was before it was shrunk, with any weights, or a function that
        returns it. None for a model of transformers, which is built by its ``config.json``, and one
        of timm, by what ``shrunk.json`` tells
    :raises FileNotFoundError: for a folder without a shrunk model, or without a ``config.json``
        where there is no builder
    :raises CheckpointError: for files that are damaged, or of another model
    :raises ValueError: for a ``config.json`` that names no model of transformers
    """
    path = Path(folder)
    content = read_shapes(path)  # first, as it says best what is wrong
    if builder is None:
        model = _built(path, content.get("built_by"))
    else:
        model = builder if isinstance(builder, nn.Module) else builder()
    fill_shrunk(model, path)
    return model.eval()


def _built(folder: Path, told: Mapping[str, Any] | None) -> nn.Module:
    library = "transformers" if told is None else told.get("library")
    if library not in _GLUE:
        known = ", ".join(_GLUE)
        raise CheckpointError(f"{folder}: built_by must name a library of {known}, found {told!r}")
    if told is None and not (folder / _CONFIG_FILE).is_file():
        raise FileNotFoundError(
            f"{folder} has no {_CONFIG_FILE}, so give load_shrunk a builder: the model as it was "
            "before it was shrunk, or a function that returns it"
        )
    model: nn.Module = importlib.import_module(_GLUE[library]).build(folder, told)
    return model
