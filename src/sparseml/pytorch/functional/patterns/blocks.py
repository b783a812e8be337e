"""Rectangles, slices, runs of inputs, and N of every M of them; and blocks as SparseML 1.x cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns.base import PerTensor, Tensors, reduce_dims, shape_text
from sparseml.pytorch.functional.selection import require_numbers


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
        """Blocks and block size along the outputs, and the same along the inputs."""
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
        cut = self._cut(scores.shape)
        spread = keep.unsqueeze(1).unsqueeze(3).expand(*cut, *scores.shape[2:])
        return spread.reshape(scores.shape)


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

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The values, and all dimensions but one."""
        if values.ndim <= self.dim:
            found = shape_text(values.shape)
            raise ValueError(f"a {self} needs a dimension {self.dim}, found {found}")
        return values, tuple(d for d in range(values.ndim) if d != self.dim)

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Each decision for its whole slice."""
        shape = [1] * scores.ndim
        shape[self.dim] = -1
        return keep.reshape(shape).expand(scores.shape).contiguous()


FILTER = Slice(0)
CHANNEL = Slice(1)


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

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Shape ``[runs, length]``; the runs of a row are neighbours."""
        if not values.ndim:
            raise ValueError(f"{self} needs a dimension, found {shape_text(values.shape)}")
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


@dataclass(frozen=True)
class NM(PerTensor):
    """``keep`` of every ``group`` consecutive inputs, as sparse tensor cores want it (2 of 4).

    A unit is one group. Pruning a unit removes its ``group - keep`` lowest weights; keeping it
    leaves it dense. So the sparsity grows with the number of groups already in the pattern, and at
    ``1 - keep / group`` all of them are. In a convolution's weight groups run along the input
    channels, at each kernel position.

    :param reduce: how the scores of what a unit loses are summed up; ``mean`` divides by ``group``
    """

    keep: int
    group: int
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if not 0 < self.keep < self.group:
            raise ValueError(f"N:M keeps N of M with 0 < N < M, found {self.keep}:{self.group}")

    def __str__(self) -> str:
        return f"{self.keep}:{self.group}"

    @property
    def full_sparsity(self) -> float:  # type: ignore[override]
        """The sparsity at which every group is in the pattern."""
        return 1.0 - self.keep / self.group

    @property
    def run(self) -> int:  # type: ignore[override]
        return self.group

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """View of shape ``[out, *kernel, in / group, group]``."""
        if values.ndim < 2 or values.shape[1] % self.group:
            also = "" if values.ndim < 2 else f" (the second) that is a multiple of {self.group}"
            raise ValueError(
                f"{self} needs an input dimension{also}, found {shape_text(values.shape)}"
            )
        return values.movedim(1, -1).unflatten(-1, (-1, self.group)), (-1,)

    def unit_scores(self, scores: Tensor, live: Tensor | None = None) -> Tensor:
        """Shape ``[out, *kernel, in / group]``: what is lost by putting each group into order."""
        require_numbers(scores)  # sorting would put NaN last and so hide it
        groups = self.fold(scores.detach())[0]
        lose = self.group - self.keep
        if live is None:
            lowest = groups.sort(dim=-1).values[..., :lose]
        else:
            there = self.fold(live)[0]
            order = groups.masked_fill(~there, -torch.inf).argsort(dim=-1)[..., :lose]
            lowest = groups.masked_fill(~there, 0.0).gather(-1, order)
        if self.reduce == "mean":
            return reduce_dims(lowest, (-1,), "sum") / self.group
        return reduce_dims(lowest, (-1,), self.reduce)

    def unit_size(self, shape: Sequence[int], units: int) -> int:
        return self.group - self.keep

    def live_size(self, live: Tensor) -> Tensor:
        """What a group has beyond the ones it may keep."""
        return (self.fold(live)[0].sum(-1) - self.keep).clamp_min(0)

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """All of the kept groups, the highest scores of the others."""
        groups = self.fold(scores)[0]
        # stable, so that among equal scores the first are kept
        order = groups.sort(dim=-1, descending=True, stable=True).indices
        best = torch.zeros_like(groups, dtype=torch.bool)
        best.scatter_(-1, order[..., : self.keep], True)
        mask = best | keep.unsqueeze(-1)
        return mask.flatten(-2).movedim(-1, 1).contiguous()

    def spread(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        return values.repeat_interleave(self.group, dim=-1).movedim(-1, 1)

    def masks(self, keep: Tensors, scores: Tensors, live: Tensors | None = None) -> list[Tensor]:
        if live is not None:
            scores = [
                tensor.masked_fill(~there, -torch.inf)
                for tensor, there in zip(scores, live, strict=True)
            ]
        return super().masks(keep, scores)
