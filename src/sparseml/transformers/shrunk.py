"""Models of transformers as they were before they were shrunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from sparseml.pytorch.shrink import fill_shrunk, load_shrunk
from sparseml.pytorch.units.saved import holds_shrunk

__all__ = ["build", "load_shrunk", "with_weights"]


def build(folder: Path, _: Mapping[str, Any] | None = None) -> nn.Module:
    """Return the model that the ``config.json`` in a folder describes, with random weights.

    :raises ValueError: if it names no model of transformers
    """
    config = transformers.AutoConfig.from_pretrained(str(folder))
    name = next(iter(config.architectures or []), None)
    kind = getattr(transformers, name or "", None)
    if kind is None:
        raise ValueError(
            f"{folder / 'config.json'}: architectures must begin with a model of transformers, "
            f"found {name!r}; give load_shrunk a builder"
        )
    model: nn.Module = kind(config)
    return model if config.dtype is None else model.to(config.dtype)


def with_weights(kind: Any, folder: str, config: Any, **more: Any) -> tuple[nn.Module, list[str]]:
    """Return the model in a folder, shrunk or not, and the names of weights that it has not.

    :param kind: an ``AutoModelFor...`` of transformers
    :param more: for its ``from_pretrained``
    :raises CheckpointError: for a shrunk model that does not fit the configuration
    """
    if holds_shrunk(folder):
        model: nn.Module = kind.from_config(config)
        fill_shrunk(model, folder)
        return model.eval(), []
    model, info = kind.from_pretrained(folder, config=config, output_loading_info=True, **more)
    return model, sorted(info["missing_keys"])
