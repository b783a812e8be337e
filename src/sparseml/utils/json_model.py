"""Data that becomes JSON and is read back."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from typing_extensions import Self

__all__ = ["JsonModel"]


class JsonModel(BaseModel):
    """A pydantic model that still answers to two names of pydantic 1, without a warning."""

    def json(self, **kwargs: Any) -> str:
        """As ``model_dump_json``."""
        return self.model_dump_json(**kwargs)

    @classmethod
    def parse_raw(cls, b: str | bytes, **kwargs: Any) -> Self:
        """As ``model_validate_json``."""
        return cls.model_validate_json(b, **kwargs)
