"""Rectangles, filters and channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from sparseml.pytorch.functional.patterns.base import PerTensor, shape_text

__all__ = ["CHANNEL", "FILTER", "Block", "Slice"]


@dataclass(frozen=True)
class Block(PerTensor):
    """True rectangles of ``rows`` outputs by ``cols`` inputs; -1 spans the whole dimension.

    In a convolution's weight each kernel position has rectangles of its own.
    """

    rows: int
    cols: int
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if any(size != -1 and size < 1 for size in (self.rows, self.cols)):
            raise ValueError(f"a block is at least 1x1 (-1: whole dimension), found {self}")

    def __str__(self) -> str:
        return "x".join("channel" if s == -1 else str(s) for s in (self.rows, self.cols))

    @property
    def run(self) -> int:  # type: ignore[override]
        """The number of columns, if there is one row and the shape does not decide."""
        return self.cols if self.rows == 1 and self.cols > 0 else 0

    def _cut(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """Return blocks and block size along the outputs, and the same along the inputs."""
        if len(shape) < 2:
            raise ValueError(
                f"{self} blocks need an output and an input dimension, found {shape_text(shape)}"
            )
        out, in_ = shape[:2]
        rows = out if self.rows == -1 else self.rows
        cols = in_ if self.cols == -1 else self.cols
        if out % max(rows, 1) or in_ % max(cols, 1):
            raise ValueError(
                f"blocks of {rows}x{cols} do not divide a weight of {shape_text(shape)}"
            )
        return out // max(rows, 1), rows, in_ // max(cols, 1), cols

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Shape ``[out / rows, rows, in / cols, cols, *kernel]``."""
        return values.reshape(*self._cut(values.shape), *values.shape[2:]), (1, 3)

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Each decision for every weight of its rectangle."""
        spread = keep.unsqueeze(1).unsqueeze(3)
        cut = self._cut(scores.shape)
        return spread.expand(*cut, *scores.shape[2:]).reshape(scores.shape)


@dataclass(frozen=True)
class Slice(PerTensor):
    """Whole slices across ``dim``: filters (0, a row of outputs) or channels (1, one input).

    The mean of absolute weights is the L1 rule of Li et al., "Pruning filters for efficient
    ConvNets" (2017).
    """

    dim: int
    reduce: str = "mean"

    def __str__(self) -> str:
        return ("filter", "channel")[self.dim] if self.dim in (0, 1) else f"dimension {self.dim}"

    def check(self, shape: Sequence[int]) -> None:
        if len(shape) <= self.dim:
            raise ValueError(f"a {self} needs a dimension {self.dim}, found {shape_text(shape)}")

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The values, and all dimensions but one."""
        self.check(values.shape)
        return values, tuple(d for d in range(values.ndim) if d != self.dim)

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Each decision for its whole slice."""
        shape = [1] * scores.ndim
        shape[self.dim] = -1
        return keep.reshape(shape).expand(scores.shape).contiguous()


FILTER = Slice(0)
CHANNEL = Slice(1)
