"""Checks of what modifiers that estimate Fisher matrices are given."""

from __future__ import annotations

from typing import Any

import torch

from sparseml.pytorch.functional.block_layout import LAYOUTS
from sparseml.pytorch.functional.fisher import require_damp
from sparseml.pytorch.sparsification.fields import as_number, one_of
from sparseml.pytorch.sparsification.pruning.fields import as_count

__all__ = [
    "FISHER_DTYPES",
    "as_damp",
    "as_device",
    "as_fisher_dtype",
    "as_layout",
    "as_optional_count",
    "as_optional_text",
    "as_samples",
]

FISHER_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def as_damp(name: str, value: Any) -> float:
    """``value`` as a dampening; YAML reads numbers such as ``1e-7`` as text.

    :raises ValueError: unless it is a finite number above 0
    """
    number = as_number(name, value)
    try:
        require_damp(number)
    except ValueError:
        raise ValueError(f"{name} must be a finite number above 0, found {value!r}") from None
    return number


def as_optional_count(name: str, value: Any) -> int | None:
    """``value`` as a whole number of at least 1, or None."""
    return None if value is None else as_count(name, value)


def as_optional_text(name: str, value: Any) -> str | None:
    """``value`` as text, or None."""
    return None if value is None else str(value)


def as_device(name: str, value: Any) -> str | None:
    """``value`` as the name of a device, or None.

    :raises ValueError: for a name that torch does not know
    """
    if value is None:
        return None
    try:
        return str(torch.device(value))
    except (RuntimeError, TypeError):
        raise ValueError(f"{name} must name a device, as cpu or cuda:0, found {value!r}") from None


as_layout = one_of(LAYOUTS)
as_samples = one_of(("batch", "sample"))
as_fisher_dtype = one_of(FISHER_DTYPES)
