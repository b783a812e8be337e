"""Blocks as SparseML 1.x cuts them: consecutive entries in row-major order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns.base import PerTensor, shape_text

__all__ = ["FOUR_BLOCK", "RowMajorBlock", "Runs"]


@dataclass(frozen=True)
class Runs(PerTensor):
    """Runs of ``length`` inputs, at each kernel position of a convolution.

    Where the number of inputs is no multiple, the last run of each row is shorter: for its score it
    is filled up with the mean of its own entries. Vectors are cut into runs, too.

    :param reduce: of a run's scores, signs included
    """

    length: int = 4
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"a run is at least 1 long, found {self.length}")

    def __str__(self) -> str:
        return f"block{self.length}"

    @property
    def run(self) -> int:  # type: ignore[override]
        return self.length

    def check(self, shape: Sequence[int]) -> None:
        if not len(shape):
            raise ValueError(f"{self} needs a dimension, found {shape_text(shape)}")

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Shape ``[runs, length]``; the runs of a row are neighbours."""
        self.check(values.shape)
        rows = values.movedim(1, -1) if values.ndim > 2 else values
        rows = rows.reshape(rows.shape[:-1].numel(), rows.shape[-1])
        left_over = rows.shape[1] % self.length
        if left_over:
            if rows.is_floating_point():
                # the mean of a run padded with its own mean is that mean
                padding = rows[:, -left_over:].mean(dim=1, keepdim=True)
            else:
                padding = rows.new_zeros(len(rows), 1)
            rows = torch.cat([rows, padding.expand(-1, self.length - left_over)], dim=1)
        return rows.reshape(-1, self.length), (1,)

    def unit_size(self, shape: Sequence[int], units: int) -> int | Tensor:
        """The length, less for the last run of a row that it does not divide."""
        inputs = shape[1] if len(shape) > 1 else shape[0]
        left_over = inputs % self.length
        if not left_over:
            return self.length
        if inputs < self.length:
            return inputs
        in_row = torch.full((-(-inputs // self.length),), self.length)
        in_row[-1] = left_over
        return in_row.repeat(units // len(in_row))

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Each decision for its whole run."""
        shape = scores.shape
        rows_shape = shape if len(shape) <= 2 else (shape[0], *shape[2:], shape[1])
        length = rows_shape[-1]
        padded = -(-length // self.length) * self.length
        rows = keep.reshape(-1, 1).expand(-1, self.length).reshape(-1, max(padded, 1))[:, :length]
        mask = rows.reshape(rows_shape)
        return mask.movedim(-1, 1).contiguous() if len(shape) > 2 else mask.contiguous()


FOUR_BLOCK = Runs(4)
"""SparseML's ``block4``."""


@dataclass(frozen=True)
class RowMajorBlock(PerTensor):
    """``rows * cols`` neighbouring entries, as SparseML 1.x cuts ``[out, in]`` blocks.

    The blocks are taken from the row-major order of the first two dimensions, at each kernel
    position, so only ``[1, k]`` (k dividing the inputs) gives rectangles: ``[2, 2]`` prunes the
    same runs of four as ``[1, 4]``. For true rectangles there is
    :class:`~sparseml.pytorch.functional.patterns.Block`.

    :param rows: outputs of a block, -1 for the whole dimension; so are ``cols`` for inputs
    """

    rows: int
    cols: int
    reduce: str = "mean"

    def __str__(self) -> str:
        return f"[{self.rows}, {self.cols}]"

    @property
    def run(self) -> int:  # type: ignore[override]
        """The number of columns, if there is one row and the shape does not decide."""
        return self.cols if self.rows == 1 and self.cols > 0 else 0

    def _cut(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return how many blocks, entries of a block and kernel positions there are."""
        if len(shape) < 2:
            raise ValueError(f"blocks need at least two dimensions, found {shape_text(shape)}")
        block = [
            size if wanted == -1 else wanted
            for wanted, size in zip((self.rows, self.cols), shape, strict=False)
        ]
        if any(wanted < 1 or size % wanted for wanted, size in zip(block, shape, strict=False)):
            raise ValueError(f"blocks of {self} do not divide a tensor of {shape_text(shape)}")
        size = block[0] * block[1]
        return shape[0] * shape[1] // size, size, torch.Size(shape[2:]).numel()

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Shape ``[blocks, entries of a block, kernel positions]``."""
        return values.reshape(self._cut(values.shape)), (1,)

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Each decision for its whole block."""
        _, size, _ = self._cut(scores.shape)
        return keep.unsqueeze(1).expand(-1, size, -1).reshape(scores.shape)
