"""How values are written into recipes."""

from __future__ import annotations

from typing import Any

__all__ = ["field_text"]


def field_text(value: Any) -> str:
    """The value of a field as it stands in a recipe."""
    return str(value)
