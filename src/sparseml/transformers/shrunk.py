"""Models of transformers as they were before they were shrunk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from torch import nn

from sparseml.pytorch.shrink import load_shrunk

__all__ = ["build", "load_shrunk"]


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
