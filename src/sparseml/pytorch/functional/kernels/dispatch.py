"""Which form of the kernels runs where."""

from __future__ import annotations

import functools
import importlib.util

import torch

from sparseml.pytorch.functional.kernels import batched
from sparseml.pytorch.functional.kernels.interface import Kernels

__all__ = ["BACKENDS", "kernels_for"]

BACKENDS = ("auto", "numba", "torch")
"""``numba``: block after block inside the processor's cache, CPU only, needs numba installed.
``torch``: many blocks at once by batched matrix products, any device. ``auto``: numba on the CPU
where it is installed, else torch."""


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def kernels_for(device: torch.device, backend: str = "auto") -> Kernels:
    """The kernels to use for tensors on ``device``.

    :param backend: one of :data:`BACKENDS`
    :raises ValueError: for another backend, or numba off the CPU
    :raises ImportError: for numba where it is not installed
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend is one of {BACKENDS}, found {backend!r}")
    if backend == "numba" and device.type != "cpu":
        raise ValueError(f"the numba kernels run on the CPU only, found tensors on {device}")
    if backend == "torch" or device.type != "cpu" or not (backend == "numba" or _has_numba()):
        return batched
    # Imported here because numba is optional and slow to import.
    from sparseml.pytorch.functional.kernels import numba_cpu

    return numba_cpu
