r"""FastCAP: one small Fisher matrix per weight, and columns pruned from left to right.

A weight is cut into R blocks of B entries, the rows of a matrix W ``[R, B]``. All rows share the
reduced Fisher matrix

.. math:: F = \frac{2}{N} \sum_{t=1}^{N} \sum_{r=1}^{R} g_{t,r} \, g_{t,r}^T ,

so it takes B^2 values instead of R B^2 (Kuznedelev et al., "CAP: Correlation-Aware Pruning for
Highly-Accurate Sparse Vision Models", 2023, algorithm 2; the column rule is that of SparseGPT).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import BlockLayout
from sparseml.pytorch.functional.second_order.linalg import (
    damped_cholesky,
    exact_arithmetic,
    require_damp,
)
from sparseml.pytorch.functional.selection import lowest_mask


class ReducedFisher:
    """Accumulates the reduced Fisher matrix of one weight.

    F is additive: ranks may sum up ``products`` and ``count``.

    :param layout: how the weight is cut into rows; the ``padded`` kind
    :param mask: weights that are still there (nonzero or True), in the weight's shape; gradients
        of the others are left out
    :param dtype: float32 or float64
    :param device: where the matrix lives; gradients are moved there
    """

    def __init__(
        self,
        layout: BlockLayout,
        *,
        mask: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        size = layout.block_size
        self.layout = layout
        self.products = torch.zeros(size, size, dtype=dtype, device=device)
        self.count = 0
        self._mask = None if mask is None else (mask != 0).to(device)

    def accumulate(self, grads: Tensor) -> None:
        """Add gradients, each of them one term of the sum.

        :param grads: ``[*shape]`` or, for several at once, ``[n, *shape]``; any dtype and device
        :raises ValueError: for another shape
        """
        grads = grads.detach().to(self.products)
        if self._mask is not None:
            grads = grads * self._mask
        rows = self.layout.to_blocks(grads).reshape(-1, self.layout.block_size)
        with exact_arithmetic(self.products.device):
            self.products.addmm_(rows.T, rows)
        self.count += grads.numel() // math.prod(self.layout.shape)

    def matrix(self) -> Tensor:
        """F, ``[B, B]``.

        :raises ValueError: before any gradient
        """
        if self.count == 0:
            raise ValueError("no gradient has been accumulated")
        return self.products * (2.0 / self.count)

    def matrices(self) -> Tensor:
        """F as the only one of its kind, ``[1, B, B]``."""
        return self.matrix().unsqueeze(0)


def fast_cap(
    weight: Tensor,
    fisher: ReducedFisher,
    count: int,
    *,
    damp: float,
    mask: Tensor | None = None,
    columns: int | None = None,
) -> tuple[Tensor, Tensor, float]:
    r"""Prune a weight to exactly ``count`` zeros; the other weights make up for them.

    :param weight: the layout's shape, any float dtype and device
    :param fisher: accumulated from gradients of this weight
    :param count: entries that are zero afterwards, those of ``mask`` included
    :param damp: dampening, relative to the mean diagonal of F
    :param mask: weights that are still there (nonzero or True); the others stay zero
    :param columns: how many columns share one threshold and one lazy update; all by default
    :return: the new weight; which entries are kept, bool; and the relative dampening used
    :raises ValueError: for a count out of range, ``damp`` not above 0, or no gradients
    """
    layout, device = fisher.layout, fisher.products.device
    live = layout.places(device) if mask is None else layout.to_blocks((mask != 0).to(device))
    rows = layout.to_blocks(weight.detach().to(fisher.products)) * live
    padding = rows.numel() - weight.numel()
    with exact_arithmetic(device):
        factor, used = _inverse_root(fisher.matrix(), damp, live)
        new, keep = prune_columns(rows, factor, live, count + padding, columns)
    return layout.from_blocks(new).to(weight), layout.from_blocks(keep).to(weight.device), used


def _inverse_root(fisher: Tensor, damp: float, live: Tensor) -> tuple[Tensor, float]:
    """The upper factor U of the dampened inverse, ``F^-1 = U^T U``, and the dampening used.

    Columns without a live weight are isolated.
    """
    require_damp(damp)
    mean = float(fisher.diagonal().mean())
    if not mean > 0.0:
        raise ValueError("all gradients are zero, so there is no Fisher matrix to prune by")
    used_columns = live.any(0)
    matrix = fisher.double() * used_columns * used_columns.unsqueeze(1)
    matrix.diagonal().add_((~used_columns).double() * mean)
    rounding = torch.finfo(fisher.dtype).eps
    lower, dampening = damped_cholesky(matrix.unsqueeze(0), damp * mean, rounding)
    inverse = torch.cholesky_inverse(lower[0])
    upper = torch.linalg.cholesky(inverse, upper=True)
    return upper.to(fisher), float(dampening[0]) / mean


def prune_columns(
    weights: Tensor, factor: Tensor, live: Tensor, count: int, columns: int | None = None
) -> tuple[Tensor, Tensor]:
    r"""Prune columns from left to right; what is still to come makes up for what goes.

    Within a group of columns the entries with the lowest :math:`W_{ri}^2 / U_{ii}^2` go, where
    :math:`U_{ii}^2` is the variance of column i given those to its right. Every group loses the
    same fraction (as far as entries that are gone already allow), so ``count`` is met exactly.

    :param weights: ``[R, B]``, zero where not live
    :param factor: upper triangular U ``[B, B]``
    :param live: bool, ``[R, B]``; the others stay zero and count
    :param count: entries that are zero afterwards
    :param columns: columns per group; all by default
    :return: new weights and which entries are kept, both ``[R, B]``
    :raises ValueError: for a count that cannot be met
    """
    rows, size = weights.shape
    gone = (~live).sum(0)
    if not int(gone.sum()) <= count <= rows * size:
        raise ValueError(
            f"cannot bring {rows * size} entries, {int(gone.sum())} of them gone, to {count} zeros"
        )
    # one contiguous row per column
    work, keep, open_count = weights.T.contiguous(), live.T.clone(), count
    for start in range(0, size, columns or size):
        stop = min(start + (columns or size), size)
        share = round(open_count * (stop - start) / (size - start))
        least, later = int(gone[start:stop].sum()), int(gone[stop:].sum())
        most = min(open_count - later, rows * (stop - start))
        share = min(max(share, least, open_count - rows * (size - stop)), most)
        open_count -= share
        cost = (work[start:stop] / factor.diagonal()[start:stop].unsqueeze(1)) ** 2
        cost[~keep[start:stop]] = -1.0
        keep[start:stop] = lowest_mask(cost, share)
        _sweep(work, keep, factor, start, stop)
    return work.T.contiguous(), keep.T.contiguous()


def _sweep(work: Tensor, keep: Tensor, factor: Tensor, start: int, stop: int) -> None:
    """Zero what is not kept of the columns ``start`` to ``stop``, compensating to the right."""
    errors = torch.zeros_like(work[start:stop])
    for i in range(start, stop):
        errors[i - start] = torch.where(keep[i], 0.0, work[i]) / factor[i, i]
        work[i] *= keep[i]
        work[i + 1 : stop].addr_(factor[i, i + 1 : stop], errors[i - start], alpha=-1)
    work[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)
