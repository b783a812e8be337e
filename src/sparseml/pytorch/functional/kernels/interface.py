"""What every form of the kernels does, and the rule that they eliminate by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["EliminationRule", "Kernels"]


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
