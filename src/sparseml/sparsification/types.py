"""What a modifier does to a model."""

from __future__ import annotations

from sparseml.optim.types import SparsificationTypes

__all__ = ["SparsificationTypes"]
