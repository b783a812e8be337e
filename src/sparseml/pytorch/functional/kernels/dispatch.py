"""Which form of the kernels runs where."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparseml.pytorch.functional.kernels import batched

__all__ = ["BACKENDS", "EliminationRule", "Kernels", "kernels_for"]

BACKENDS = ("auto", "numba", "torch")
"""``numba``: block after block inside the processor's cache, CPU only, needs numba installed.
``torch``: many blocks at once by batched matrix products, any device. ``auto``: numba on the CPU
where it is installed, else torch."""


@dataclass(frozen=True)
class EliminationRule:
    """What may be eliminated, and when to stop.

    :param depth: most steps per block
    :param limit: stop a block after the first step whose cumulative loss is above this
    :param group: consecutive entries that are eliminated together in one step
    :param nm: ``(keep, of)``: at most ``of - keep`` of every ``of`` consecutive entries may go
    """

    depth: int
    limit: float = float("inf")
    group: int = 1
    nm: tuple[int, int] | None = None


class Kernels(Protocol):
    """One form of the two inner loops. R blocks of B entries, all tensors of one float dtype."""

    def eliminate(
        self, weights: Tensor, inverse: Tensor, floor: Tensor, live: Tensor, rule: EliminationRule
    ) -> tuple[Tensor, Tensor]:
        """Order (int16, -1 = none) and cumulative losses (inf = none), both ``[R, depth]``."""

    def joint_update(
        self, weights: Tensor, inverse: Tensor, floor: Tensor, pruned: Tensor
    ) -> tuple[Tensor, Tensor]:
        """New weights ``[R, B]`` and the loss ``[R]`` of removing ``pruned`` from each block."""


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
