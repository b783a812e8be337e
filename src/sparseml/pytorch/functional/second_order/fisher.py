r"""The block empirical Fisher matrix of a weight, accumulated from gradients.

.. math:: F_r = \lambda I + \frac{1}{N} \sum_{t=1}^{N} g_{t,r} \, g_{t,r}^T

for each block r of consecutive weights. Gradients are collected and multiplied in as one matrix
product per block; the inverse is formed once, at the end, through a Cholesky factor. This equals
the Sherman-Morrison recursion of WoodFisher (Singh & Alistarh, 2020) and oBERT (Kurtic et al.,
2022) and moves a hundredth of the memory. F is additive: ranks may sum up ``blocks`` and
``count``.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import BlockInverse, BlockLayout, block_layout
from sparseml.pytorch.functional.second_order.linalg import (
    damped_cholesky,
    map_rows,
    one_thread,
    require_damp,
)

__all__ = ["BlockFisher", "EmpiricalBlockFisherInverse", "add_products", "invert_blocks"]

_PRODUCT_BYTES = {True: 1 << 22, False: 1 << 62}  # on the CPU or not: at once
_FACTOR_BYTES = {True: 1 << 21, False: 1 << 27}
_LARGEST_BUFFER = 64


def add_products(blocks: Tensor, grads: Tensor) -> None:
    """Add ``sum_t g_t g_t^T`` to every block, in place.

    :param blocks: ``[R, B, B]``
    :param grads: ``[R, n, B]``, dtype and device of ``blocks``; fastest where contiguous
    """
    rows, size, _ = blocks.shape
    if size == 1:
        for grad in grads.unbind(1):
            blocks[:, 0].addcmul_(grad, grad)
        return

    def work(start: int, stop: int) -> None:
        part = grads[start:stop]
        blocks[start:stop].baddbmm_(part.mT, part)

    row_bytes = size * size * blocks.element_size()
    map_rows(work, rows, row_bytes, _PRODUCT_BYTES[blocks.is_cpu], blocks.device)


def invert_blocks(blocks: Tensor, count: float, damp: float, live: Tensor) -> tuple[Tensor, Tensor]:
    r"""Turn sums of products into inverses of :math:`F = \lambda I + S / N`, in place.

    Entries that are not live are isolated: nothing but the dampening is left of their row and
    column, so that the inverse of the others is that of the others alone. Factoring is done in
    double precision, a chunk of blocks at a time. Where rounding has eaten the dampening of a block
    it is raised (:func:`.damped_cholesky`).

    :param blocks: ``[R, B, B]``, sums of products of N gradients; becomes their inverse
    :param count: N
    :param damp: :math:`\lambda` > 0
    :param live: bool, ``[R, B]``
    :return: the dampening used, ``[R]``; and the diagonal of F with it, ``[R, B]``
    :raises ValueError: for another ``damp``, N < 1 or sums that are not finite
    """
    require_damp(damp)
    if count < 1:
        raise ValueError("no gradient has been accumulated")
    rows, size, _ = blocks.shape
    used, diagonals = blocks.new_empty(rows), blocks.new_empty(rows, size)
    rounding = torch.finfo(blocks.dtype).eps

    def work(start: int, stop: int) -> None:
        on = live[start:stop]
        fisher = blocks[start:stop].double().div_(count)
        fisher.mul_(on.unsqueeze(1)).mul_(on.unsqueeze(2))
        diagonal = fisher.diagonal(dim1=1, dim2=2)
        if size == 1:
            factor, damps = (fisher + damp).sqrt(), fisher.new_full((stop - start,), damp)
        else:
            factor, damps = damped_cholesky(fisher, damp, rounding)
        diagonals[start:stop] = diagonal + damps.unsqueeze(1)
        blocks[start:stop] = torch.cholesky_inverse(factor) if size > 1 else factor.pow_(-2)
        used[start:stop] = damps

    map_rows(work, rows, 8 * size * size, _FACTOR_BYTES[blocks.is_cpu], blocks.device)
    return used, diagonals


class BlockFisher:
    """Accumulates the block empirical Fisher matrix of one weight, or of a part of it.

    Takes ``num_blocks * block_size^2`` values, and a buffer of at most a quarter of that for
    gradients (or of ``chunk`` gradients).

    :param layout: how the weight is cut into blocks
    :param dtype: float32, or float64 where the dampening is tiny against the squared gradients
    :param device: where the blocks live; gradients are moved there
    :param blocks: the range of blocks to hold, for a weight that is shared out over devices or
        ranks; all of them by default
    :param chunk: how many gradients to collect before they are multiplied in
    :raises ValueError: for an integer or half-precision ``dtype``
    """

    def __init__(
        self,
        layout: BlockLayout,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        blocks: slice = slice(None),
        chunk: int | None = None,
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"a Fisher matrix is float32 or float64, found {dtype}")
        self.layout = layout
        self.part = slice(*blocks.indices(layout.num_blocks)[:2])
        size = layout.block_size
        rows = self.part.stop - self.part.start
        self.blocks = torch.zeros(rows, size, size, dtype=dtype, device=device)
        self.count = 0
        self._chunk = chunk or max(1, min(size // 4, _LARGEST_BUFFER))
        self._buffer: Tensor | None = None
        self._waiting = 0

    def accumulate(self, grads: Tensor) -> None:
        """Add gradients, each of them one term of the sum.

        :param grads: ``[*shape]`` or, for several at once, ``[n, *shape]``; any dtype and device
        :raises ValueError: for another shape
        """
        blocks = self.layout.to_blocks(grads.detach())[..., self.part, :]
        self.accumulate_blocks(blocks.reshape(-1, *self.blocks.shape[:2]))

    def accumulate_blocks(self, blocks: Tensor) -> None:
        """Add gradients that have been cut into the blocks held here already.

        :param blocks: ``[n, R, B]``, any dtype and device
        """
        if self._buffer is None:
            rows, size, _ = self.blocks.shape
            self._buffer = self.blocks.new_empty(rows, self._chunk, size)
        self.count += len(blocks)
        while len(blocks):
            fits = min(len(blocks), self._chunk - self._waiting)
            with one_thread():
                into = self._buffer[:, self._waiting : self._waiting + fits]
                into.copy_(blocks[:fits].transpose(0, 1))
            self._waiting += fits
            if self._waiting == self._chunk:
                self.flush()
            blocks = blocks[fits:]

    def flush(self) -> None:
        """Multiply in the gradients that wait in the buffer, so that ``blocks`` is complete."""
        if self._buffer is not None and self._waiting:
            add_products(self.blocks, self._buffer[:, : self._waiting])
        self._waiting = 0

    def diagonal(self) -> Tensor:
        """Return the mean square of each entry of the gradients, ``[R, B]``."""
        self.flush()
        return self.blocks.diagonal(dim1=1, dim2=2) / max(1, self.count)

    def factor(
        self,
        damp: float,
        mask: Tensor | None = None,
        *,
        count: float | None = None,
        keep: bool = False,
    ) -> BlockInverse:
        r"""Invert, in the memory of the sums; this object is spent thereafter.

        :param damp: :math:`\lambda`, absolute
        :param mask: weights that are still there (nonzero or True), shape of the weight; the others
            are isolated. All by default
        :param count: N, the number of gradients that have been accumulated by default
        :param keep: leave the sums as they are, and take as much memory again
        :raises ValueError: for ``damp`` not above 0, no gradients, or gradients that were not
            finite
        :raises RuntimeError: when called a second time
        """
        self.flush()
        if self.blocks.numel() == 0 and self.part.stop > self.part.start:
            raise RuntimeError("this Fisher matrix has been inverted already, in its own memory")
        self._buffer = None
        if mask is None:
            live = self.layout.places(self.blocks.device)[self.part]
        else:
            live = self.layout.to_blocks(mask.to(self.blocks.device) != 0)[self.part]
        terms = self.count if count is None else count
        inverse = self.blocks.clone() if keep else self.blocks
        used, diagonal = invert_blocks(inverse, terms, damp, live)
        if not keep:
            self.blocks = self.blocks.new_empty(0)
        return BlockInverse(self.layout, self.part, inverse, live, diagonal.reciprocal_(), used)


class EmpiricalBlockFisherInverse:
    """The block Fisher inverse under the name and with the methods that it had in SparseML 1.x.

    Add gradients, then ask for the diagonal of the inverse or for products with it.

    :param num_grads: N, by which the sum of products is divided
    :param fisher_block_size: weights per block; the last block is filled up
    :param num_weights: D
    :param damp: absolute
    :param device: where the blocks live
    :raises ValueError: for sizes below 1 or ``damp`` not above 0
    """

    def __init__(
        self,
        num_grads: int,
        fisher_block_size: int,
        num_weights: int,
        damp: float,
        device: torch.device | str,
    ) -> None:
        require_damp(damp)
        if num_grads < 1:
            raise ValueError(f"num_grads is at least 1, found {num_grads}")
        self._num_grads, self._damp = num_grads, damp
        self._fisher = BlockFisher(block_layout([num_weights], fisher_block_size), device=device)

    def add_grad(self, g: Tensor) -> None:
        """Add a gradient ``[D]``.

        :raises RuntimeError: after the inverse has been formed
        """
        if "f_inv" in vars(self):
            raise RuntimeError("gradients cannot be added after diag() or mul()")
        self._fisher.accumulate(g)

    @cached_property
    def f_inv(self) -> BlockInverse:
        """The inverse, formed when it is first asked for."""
        return self._fisher.factor(self._damp, count=self._num_grads)

    def diag(self) -> Tensor:
        """Diagonal of the inverse, ``[D]``."""
        return self.f_inv.diag()

    def mul(self, v: Tensor) -> Tensor:
        """Product of the inverse with a vector ``[D]``."""
        return self.f_inv.mul(v)
