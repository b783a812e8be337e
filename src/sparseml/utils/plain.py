"""Values of any kind as what JSON can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any


def plain_data(value: Any) -> Any:
    """Turn tensors, arrays, numbers of any kind and nested containers into plain data.

    Infinite and undefined numbers become ``"Infinity"``, ``"-Infinity"`` and ``"NaN"``, which
    ``float`` reads back and every JSON parser accepts; what has no plain form becomes its ``str``.
    """
    if hasattr(value, "model_dump"):  # pydantic's models
        value = value.model_dump()
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # tensors, arrays and numpy's numbers
        return plain_data(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Collection) and not isinstance(value, (bytes, bytearray)):
        return [plain_data(item) for item in value]
    return str(value)


def json_of(text: str | bytes) -> Any:
    """Return what a text in JSON says.

    :raises ValueError: if it is none, or nested too deeply
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
