"""How much memory there is, and how people write down how much to use."""

from __future__ import annotations

import os
import re
from typing import Any

import torch

from sparseml.pytorch.utils.distributed import any_rank

__all__ = ["as_memory", "describe_bytes", "free_bytes", "parse_bytes", "require_free"]

_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
}


def parse_bytes(text: str | int | float) -> int:
    """A number of bytes written as ``4GB``, ``512 MiB`` or plainly.

    :raises ValueError: for anything else, and for less than one byte
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", str(text).lower())
    size = int(float(found[1]) * _UNITS[found[2]]) if found and found[2] in _UNITS else 0
    if size < 1 or isinstance(text, bool):
        raise ValueError(f"a size in memory is written as 4GB or 512MiB, found {text!r}")
    return size


def as_memory(name: str, value: Any) -> str | None:
    """``value`` as a size in memory, as it was written; None stays None.

    :raises ValueError: naming ``name``
    """
    if value is None:
        return None
    try:
        parse_bytes(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return str(value)


def free_bytes(device: torch.device) -> int | None:
    """How much of a device's memory can still be taken, None where that is not known."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + int(cached)
    if device.type != "cpu":
        return None
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def require_free(
    owner: str, purpose: str, needed: float, device: torch.device, advice: str
) -> None:
    """Check that a device has so many bytes to give; all ranks raise if one has to.

    :param advice: what could be done about it; ``{half}`` is half of what is free
    :raises RuntimeError: if it has not
    """
    free = free_bytes(device)
    if any_rank(free is not None and needed > free):
        half = describe_bytes(0.5 * (free or 0)).replace(" ", "")
        raise RuntimeError(
            f"{owner} needs {describe_bytes(needed)} on {device} for {purpose}, and "
            f"{describe_bytes(free or 0)} are free there. {advice.format(half=half)}"
        )


def describe_bytes(size: float) -> str:
    """``4.1 GB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000.0:
            return f"{size:.3g} {unit}"
        size /= 1000.0
    return f"{size:.3g} GB"
