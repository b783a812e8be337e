"""How a weight is cut into the blocks of its Fisher matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["LAYOUTS", "BlockLayout", "block_layout"]

LAYOUTS = ("padded", "divisor", "row")
"""``padded``: blocks of exactly the size asked, the last one filled up with zeros.
``divisor``: the size is raised to the next divisor of the weight's size, so nothing is filled up.
``row``: no block straddles two outputs; each output's weights are cut into equal blocks of at most
the size asked."""


@dataclass(frozen=True)
class BlockLayout:
    """A one-to-one map between a weight and ``num_blocks`` blocks of ``block_size`` entries.

    Made by :func:`block_layout`. Places that belong to no weight hold zero.
    """

    shape: tuple[int, ...]
    num_blocks: int
    block_size: int
    group: int
    # The weight is cut into runs (of inputs, when groups matter), each padded to whole groups;
    # the runs of one row follow each other and are padded once more to whole blocks.
    run: int
    padded_run: int
    row: int
    padded_row: int

    @property
    def inputs_last(self) -> bool:
        """Whether dimension 1 is moved to the end, so that groups run along the inputs."""
        return self.group > 1 and len(self.shape) > 2

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def _rows(self) -> int:
        return self.num_blocks * self.block_size // self.padded_row

    def to_blocks(self, tensor: Tensor) -> Tensor:
        """Cut a weight, a mask or a gradient.

        :param tensor: ``[*batch, *shape]``
        :return: ``[*batch, num_blocks, block_size]``; places without a weight hold 0 (False)
        :raises ValueError: for another shape
        """
        ndim = len(self.shape)
        if ndim > tensor.ndim or tuple(tensor.shape[tensor.ndim - ndim :]) != self.shape:
            raise ValueError(f"this layout is for shape {self.shape}, found {tuple(tensor.shape)}")
        batch = tensor.shape[: tensor.ndim - ndim]
        if self.inputs_last:
            tensor = tensor.movedim(len(batch) + 1, -1)
        runs = tensor.reshape(*batch, self.size // self.run, self.run)
        rows = _widen(runs, self.padded_run).reshape(*batch, self._rows, self.row)
        blocks = _widen(rows, self.padded_row)
        return blocks.reshape(*batch, self.num_blocks, self.block_size)

    def from_blocks(self, blocks: Tensor) -> Tensor:
        """Undo :meth:`to_blocks`.

        :param blocks: ``[*batch, num_blocks, block_size]``
        :return: ``[*batch, *shape]``, contiguous
        """
        batch = blocks.shape[:-2]
        rows = blocks.reshape(*batch, self._rows, self.padded_row)[..., : self.row]
        runs = rows.reshape(*batch, self.size // self.run, self.padded_run)[..., : self.run]
        if not self.inputs_last:
            return runs.reshape(*batch, *self.shape).contiguous()
        moved = (self.shape[0], *self.shape[2:], self.shape[1])
        return runs.reshape(*batch, *moved).movedim(-1, len(batch) + 1).contiguous()

    def places(self, device: torch.device | str = "cpu") -> Tensor:
        """Which places hold a weight: bool, ``[num_blocks, block_size]``."""
        return self.to_blocks(torch.ones(self.shape, dtype=torch.bool, device=device))


def block_layout(
    shape: Sequence[int],
    block_size: int,
    kind: str = "padded",
    *,
    group: int = 1,
    whole_groups: bool = False,
) -> BlockLayout:
    """Choose how a weight of the given shape is cut into Fisher blocks.

    Weights are taken in row-major order. With ``group`` > 1 they are taken with the input
    dimension (the second) last, so that every ``group`` consecutive inputs of one output, at one
    kernel position, lie next to each other in one block.

    :param shape: ``[out, in, *kernel]``, ``[out, in]`` or ``[out]``
    :param block_size: entries per block; never more than the weight has
    :param kind: one of :data:`LAYOUTS`
    :param group: inputs that must not be torn apart (4 for blocks of four and for 2:4)
    :param whole_groups: refuse an input dimension that ``group`` does not divide, instead of
        filling up its last group
    :raises ValueError: for an empty weight, sizes below 1, another kind, or a torn group
    """
    shape = tuple(shape)
    size = math.prod(shape)
    if not shape or size == 0:
        raise ValueError(f"a weight of shape {shape} has no entries to cut into blocks")
    if block_size < 1 or group < 1:
        raise ValueError(f"block_size and group are at least 1, found {block_size} and {group}")
    if kind not in LAYOUTS:
        raise ValueError(f"a block layout is one of {LAYOUTS}, found {kind!r}")
    inputs = shape[1] if len(shape) > 1 else shape[0]
    if whole_groups and inputs % group:
        raise ValueError(
            f"groups of {group} inputs need an input dimension (the second) that is a multiple "
            f"of {group}, found shape {shape}"
        )
    rows = shape[0] if kind == "row" and len(shape) > 1 else 1
    run = inputs if group > 1 else size // rows
    padded_run = _up(run, group)
    row = size // rows // run * padded_run
    block_size, padded_row = _cut(row, min(block_size, row), kind, group)
    return BlockLayout(
        shape=shape,
        num_blocks=rows * padded_row // block_size,
        block_size=block_size,
        group=group,
        run=run,
        padded_run=padded_run,
        row=row,
        padded_row=padded_row,
    )


def _cut(row: int, block_size: int, kind: str, group: int) -> tuple[int, int]:
    """The final block size, and the row length padded to whole blocks."""
    if kind == "divisor":
        fits = [d for d in _divisors(row) if d >= block_size and d % group == 0]
        return min(fits), row
    if kind == "row":
        block_size = math.ceil(row / math.ceil(row / block_size))
    block_size = _up(block_size, group)
    return block_size, _up(row, block_size)


def _divisors(number: int) -> set[int]:
    small = {d for d in range(1, math.isqrt(number) + 1) if number % d == 0}
    return small | {number // d for d in small}


def _up(number: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-number // step) * step


def _widen(tensor: Tensor, length: int) -> Tensor:
    """Fill up the last dimension with zeros."""
    missing = length - tensor.shape[-1]
    return pad(tensor, (0, missing)) if missing else tensor
