"""What this machine's processor does fast, and what not."""

from __future__ import annotations

import functools
import importlib.util
import logging
import platform

import torch

_LOGGER = logging.getLogger(__name__)


def fast_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 itself; True where torch cannot tell."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    checks = [check for name in names if (check := getattr(torch.cpu, name, None))]
    if platform.machine().lower() not in ("x86_64", "amd64") or not checks:
        return True
    return any(check() for check in checks)


@functools.cache
def tell_slow_bfloat16(doing: str) -> None:
    """Warn, once, that bfloat16 is slow on this CPU, if it is.

    :param doing: what is done in it, as in "gradients sampled in bfloat16"
    """
    if not fast_bfloat16():
        text = "%s: this processor has no instructions for it, and may take ten times as long as "
        text += "without"
        _LOGGER.warning(text, doing)


@functools.cache
def tell_without_numba() -> None:
    """Warn, once, that CAP is slow on a CPU where numba is not installed."""
    if not importlib.util.find_spec("numba"):
        _LOGGER.warning(
            "numba is not installed: CAP takes ten times as long to eliminate weights on a CPU; "
            "pip install sparseml-next[numba]"
        )
