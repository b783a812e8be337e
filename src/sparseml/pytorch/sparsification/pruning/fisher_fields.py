"""Fields of the modifiers that estimate Fisher matrices."""

from __future__ import annotations

from typing import Any

import torch

from sparseml.pytorch.functional.block_layout import LAYOUTS
from sparseml.pytorch.functional.fisher import require_damp
from sparseml.pytorch.sparsification.fields import as_number, field, one_of
from sparseml.pytorch.sparsification.pruning.fields import as_count
from sparseml.pytorch.sparsification.pruning.memory import as_memory

__all__ = [
    "FISHER_DTYPES",
    "as_damp",
    "as_optional_count",
    "as_optional_text",
    "block_size_field",
    "damp_field",
    "device_field",
    "dtype_field",
    "layout_field",
    "memory_field",
    "samples_field",
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


def damp_field() -> Any:
    """What is added to the diagonal of the Fisher matrix."""
    return field("damp", as_damp, "Dampening of the Fisher matrix.")


def block_size_field() -> Any:
    """Weights per Fisher block."""
    return field("fisher_block_size", as_count, "Weights per block of the Fisher matrix.")


def device_field() -> Any:
    """Where Fisher matrices live."""
    return field("fisher_inv_device", as_device, "Where Fisher matrices live.")


def layout_field() -> Any:
    """How weights are cut into blocks."""
    return field("fisher_block_layout", one_of(LAYOUTS), "How weights are cut into blocks.")


def samples_field() -> Any:
    """What one gradient is of."""
    doc = "Whether a gradient is that of a batch or of a single sample."
    return field("fisher_samples", one_of(("batch", "sample")), doc)


def memory_field() -> Any:
    """How much memory Fisher matrices may take."""
    return field("fisher_memory", as_memory, "How much memory Fisher matrices may take.")


def dtype_field() -> Any:
    """The precision of Fisher matrices."""
    return field("fisher_dtype", one_of(FISHER_DTYPES), "The precision of Fisher matrices.")
