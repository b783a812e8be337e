"""What this package can do to sparsify PyTorch models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sparseml.sparsification.info import SparsificationInfo

__all__ = ["sparsification_info"]


def sparsification_info() -> SparsificationInfo:
    """A description of the PyTorch sparsification support; it lists no single modifiers."""
    from sparseml.sparsification.info import SparsificationInfo

    return SparsificationInfo(modifiers=[])
