"""Mixed precision, as the settings of a run ask for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from sparseml.run.processes import Processes
from sparseml.run.settings.groups import RunSettings

Autocast = Callable[[], AbstractContextManager[Any]]


def autocast_of(run: RunSettings, where: Processes) -> Autocast:
    """Return what forward passes run in: mixed precision if asked for."""
    if not run.amp:
        return nullcontext
    kind, name = where.device.type, half_type(run, where)
    return lambda: torch.autocast(kind, dtype=getattr(torch, name))


def gradient_scaler(run: RunSettings, where: Processes) -> torch.amp.GradScaler | None:
    """Return what keeps gradients of float16 from vanishing; None where nothing need."""
    if not run.amp or half_type(run, where) != "float16":
        return None
    return torch.amp.GradScaler(where.device.type)


def half_type(run: RunSettings, where: Processes) -> str:
    """Return the name of the type that mixed precision computes in."""
    return run.amp_dtype or ("float16" if where.device.type == "cuda" else "bfloat16")
