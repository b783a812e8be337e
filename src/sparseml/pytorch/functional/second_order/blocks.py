"""A weight cut into the blocks of its Fisher matrix, and the inverse of that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from sparseml.pytorch.functional.second_order.obs import joint_update, simultaneous_update

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
    rows: int
    row: int
    padded_row: int

    def to_blocks(self, tensor: Tensor) -> Tensor:
        """Cut a weight, a mask or a gradient.

        :param tensor: ``[*batch, *shape]``
        :return: ``[*batch, num_blocks, block_size]``; places without a weight hold 0 (False)
        :raises ValueError: for another shape
        """
        dims = tensor.ndim - len(self.shape)
        batch = tensor.shape[: max(dims, 0)]
        if tensor.shape != (*batch, *self.shape):
            raise ValueError(f"this layout is for shape {self.shape}, found {tuple(tensor.shape)}")
        if self.group > 1 and len(self.shape) > 2:  # groups run along the inputs
            tensor = tensor.movedim(dims + 1, -1)
        rows = tensor.reshape(*batch, self.rows * self.row // self.padded_run, self.run)
        if self.run < self.padded_run:
            rows = pad(rows, (0, self.padded_run - self.run))
        rows = rows.reshape(*batch, self.rows, self.row)
        if self.row < self.padded_row:
            rows = pad(rows, (0, self.padded_row - self.row))
        return rows.reshape(*batch, self.num_blocks, self.block_size)

    def from_blocks(self, blocks: Tensor) -> Tensor:
        """Undo :meth:`to_blocks`.

        :param blocks: ``[*batch, num_blocks, block_size]``
        :return: ``[*batch, *shape]``, contiguous
        """
        batch = blocks.shape[:-2]
        rows = blocks.reshape(*batch, self.rows, self.padded_row)[..., : self.row]
        runs = rows.reshape(*batch, self.rows * self.row // self.padded_run, self.padded_run)
        runs = runs[..., : self.run]
        if self.group == 1 or len(self.shape) < 3:
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
    padded_run = -(-run // group) * group
    row = padded_row = size // rows // run * padded_run
    block_size = min(block_size, row)
    if kind == "divisor":
        fits = range(block_size, row + 1)
        block_size = next(d for d in fits if row % d == 0 and d % group == 0)
    else:
        if kind == "row":
            block_size = math.ceil(row / math.ceil(row / block_size))
        block_size = -(-block_size // group) * group
        padded_row = -(-row // block_size) * block_size
    return BlockLayout(
        shape=shape,
        num_blocks=rows * padded_row // block_size,
        block_size=block_size,
        group=group,
        run=run,
        padded_run=padded_run,
        rows=rows,
        row=row,
        padded_row=padded_row,
    )


@dataclass(frozen=True)
class BlockInverse:
    """Made by :meth:`~sparseml.pytorch.functional.second_order.fisher.BlockFisher.factor`.

    :param layout: how the weight is cut into blocks
    :param part: which of the blocks are held here, R of them
    :param inverse: ``[R, B, B]``
    :param live: weights that are still there, bool ``[R, B]``
    :param floor: lower bounds of the conditional variances, ``1 / F_ii``, ``[R, B]``
    :param dampening: the dampening used in each block, ``[R]``
    """

    layout: BlockLayout
    part: slice
    inverse: Tensor
    live: Tensor
    floor: Tensor
    dampening: Tensor

    def blocks_of(self, tensor: Tensor) -> Tensor:
        """The blocks held here of a tensor of the weight's shape, ``[R, B]``, on our device."""
        blocks = self.layout.to_blocks(tensor.detach())[self.part]
        if tensor.dtype == torch.bool:
            return blocks.to(self.inverse.device)
        return blocks.to(self.inverse)

    def whole(self, blocks: Tensor) -> Tensor:
        """Blocks ``[R, B]`` in the weight's shape, zero where no block is held here."""
        full = blocks.new_zeros(self.layout.num_blocks, self.layout.block_size)
        full[self.part] = blocks
        return self.layout.from_blocks(full)

    def diag(self) -> Tensor:
        """The diagonal of the inverse, in the weight's shape."""
        places = self.layout.places(self.inverse.device)[self.part]
        return self.whole(self.inverse.diagonal(dim1=1, dim2=2) * places)

    def mul(self, vector: Tensor) -> Tensor:
        """The product of the inverse with a tensor of the weight's shape."""
        product = torch.bmm(self.inverse, self.blocks_of(vector).unsqueeze(-1))
        return self.whole(product.squeeze(-1))

    def update(
        self,
        weight: Tensor,
        pruned: Tensor,
        *,
        rule: str = "joint",
        group: int = 1,
        backend: str = "auto",
    ) -> tuple[Tensor, float]:
        """Remove weights and let the others make up for them. Those that were gone stay zero.

        :param weight: in the weight's shape, any float dtype and device
        :param pruned: bool, weights to remove, in the weight's shape
        :param rule: ``joint`` or ``simultaneous``
        :param group: entries per group of the simultaneous rule
        :return: the blocks of the new weight, ``[R, B]``, dtype and device of ``inverse``; and
            their loss in the quadratic model (nan for the simultaneous rule, which does not know
            it)
        :raises ValueError: for another rule
        """
        held, gone = self.blocks_of(weight) * self.live, self.blocks_of(pruned) & self.live
        if rule == "simultaneous":
            return simultaneous_update(held, self.inverse, gone, group), float("nan")
        if rule != "joint":
            raise ValueError(f"the rule is 'joint' or 'simultaneous', found {rule!r}")
        new, losses = joint_update(held, self.inverse, gone, floor=self.floor, backend=backend)
        return new, float(losses.sum(dtype=torch.float64))
