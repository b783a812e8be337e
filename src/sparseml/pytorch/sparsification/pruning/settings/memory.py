"""How people write down how much memory to use."""

from __future__ import annotations

import re
from typing import Any

_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}


def parse_bytes(text: str | int | float) -> int:
    """At least one byte, written as ``4GB``, ``512 MiB`` or plainly; a ValueError for others."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", str(text).lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if size < 1 or isinstance(text, bool):
        raise ValueError(f"a size in memory is written as 4GB or 512MiB, found {text!r}")
    return size


def as_memory(name: str, value: Any) -> str | None:
    """``value`` as a size in memory, as it was written, or a ValueError; None stays None."""
    if value is None:
        return None
    try:
        parse_bytes(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return str(value)


def describe_bytes(size: float) -> str:
    """``4.1 GB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000.0:
            return f"{size:.3g} {unit}"
        size /= 1000.0
    return f"{size:.3g} GB"
