r"""The rows of a weight that share one matrix, pruned column by column.

With the upper factor U of the dampened inverse, :math:`F^{-1} = U^T U`, pruning an entry while the
columns to its right make up for it costs :math:`w_{ri}^2 / 2 U_{ii}^2`, and a run Q of neighbours
:math:`\tfrac12 \lVert U_{QQ}^{-T} w_{rQ} \rVert^2` (Frantar & Alistarh, "SparseGPT", 2023,
equations 4 and 5). As all rows are swept in the same order, one factor serves them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import BlockLayout
from sparseml.pytorch.functional.second_order.elimination import eliminate
from sparseml.pytorch.functional.second_order.linalg import (
    damped_cholesky,
    exact_arithmetic,
    require_damp,
)
from sparseml.pytorch.functional.second_order.whole_rows import solve_rows

ORDERS = ("natural", "diagonal", "loss")
"""``natural``: from left to right. ``diagonal``: the largest diagonal of F first. ``loss``: the
columns first that would lose most, as long as many others can make up for it. Runs that belong
together stay together."""

_ROW_BYTES = 1 << 26


class RowMatrix(Protocol):
    """What rows share; :class:`.ReducedFisher` and :class:`.InputMoments` are such."""

    layout: BlockLayout

    def matrices(self) -> Tensor:
        """F of each group of rows, ``[groups, B, B]``."""
        ...


@dataclass(frozen=True)
class SharedRows:
    """The rows of one weight in the order of the sweep, by groups that share a matrix.

    Made by :func:`shared_rows`; with R rows in each of G groups.

    :param rows: ``[G, R, B]``, zero where nothing is
    :param live: bool, ``[G, R, B]``
    :param matrices: dampened, ``[G, B, B]``
    :param factors: U, ``[G, B, B]``
    :param places: the column that each place of the sweep has in the layout, ``[G, B]``
    :param damp: the relative dampening used, of the groups the highest
    """

    layout: BlockLayout
    rows: Tensor
    live: Tensor
    matrices: Tensor
    factors: Tensor
    places: Tensor
    damp: float

    def costs(self) -> Tensor:
        """Return what pruning each weight by itself costs, in the weight's shape.

        Of a run of the layout, each entry has its share of what the run costs.
        """
        run = self.layout.group
        if run == 1:
            scaled = self.rows / self.factors.diagonal(dim1=1, dim2=2).unsqueeze(1)
            return self._back(scaled**2 / 2)
        groups, rows, size = self.rows.shape
        parts = self.factors.view(groups, size // run, run, size // run, run)
        corners = parts.diagonal(dim1=1, dim2=3).movedim(-1, 1)  # [G, B / k, k, k]
        values = self.rows.view(groups, rows, -1, run).transpose(1, 2)
        solved = torch.linalg.solve_triangular(corners, values, upper=True, left=False)
        each = (solved**2).sum(-1, keepdim=True) / (2 * run)
        return self._back(each.expand_as(values).transpose(1, 2).reshape(self.rows.shape))

    def eliminated(self, nm: tuple[int, int] | None = None) -> Tensor:
        """Return what each weight costs when its row loses them one by one, in the weight's shape.

        :param nm: ``(N, M)``, to keep N of M
        """
        run, size = self.layout.group if nm is None else 1, self.rows.shape[2]
        step = max(1, _ROW_BYTES // (size * size * self.rows.element_size()))
        found = []
        for rows, live, matrix in zip(self.rows, self.live, self.matrices, strict=True):
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix.double())).to(rows)
            floor = matrix.diagonal().reciprocal()
            for part, there in zip(rows.split(step), live.split(step), strict=True):
                own = inverse.expand(len(part), -1, -1)
                floors = floor.expand(len(part), -1)
                found.append(eliminate(part, own, there, group=run, nm=nm, floor=floors).scores())
        return self._back(torch.cat(found).view(self.rows.shape))

    def swept(self, keep: Tensor, nm: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Prune column by column, what is still to come making up for what goes.

        :param keep: bool, in the weight's shape
        :param nm: ``(N, M)``: of a group that does not keep more than N, those are kept that cost
            most when the sweep comes to it
        :return: the new weight and what is kept, both in the weight's shape
        """
        kept = self._into(keep)
        new, chosen = torch.empty_like(self.rows), torch.empty_like(kept)
        for index, factor in enumerate(self.factors):
            work = self.rows[index].T.contiguous()
            columns = kept[index].T.contiguous()
            live = self.live[index].T.contiguous()
            with exact_arithmetic(work.device):
                _sweep_groups(work, columns, live, factor, nm)
            new[index], chosen[index] = work.T, columns.T
        return self._back(new), self._back(chosen)

    def solved(self, keep: Tensor) -> Tensor:
        """Return the best weights of all rows for a mask, both in the weight's shape."""
        kept = self._into(keep)
        each: Iterable[tuple[Tensor, Tensor, Tensor]] = zip(
            self.rows, self.matrices, kept, strict=True
        )
        return self._back(torch.stack([solve_rows(*one) for one in each]))

    def _into(self, tensor: Tensor) -> Tensor:
        blocks = self.layout.to_blocks(tensor.to(self.rows.device)).view(self.rows.shape)
        return blocks.gather(2, self.places.unsqueeze(1).expand_as(blocks))

    def _back(self, values: Tensor) -> Tensor:
        blocks = torch.empty_like(values)
        blocks.scatter_(2, self.places.unsqueeze(1).expand_as(values), values)
        return self.layout.from_blocks(blocks.view(self.layout.num_blocks, -1))


def shared_rows(
    weight: Tensor,
    shared: RowMatrix,
    *,
    damp: float,
    mask: Tensor | None = None,
    order: str = "natural",
    sparsity: float = 0.5,
) -> SharedRows:
    """Cut a weight into the rows that share a matrix, and factor that.

    :param weight: the layout's shape, any float dtype and device
    :param shared: accumulated
    :param damp: dampening, relative to the mean diagonal of F
    :param mask: weights that are still there (nonzero or True)
    :param order: one of :data:`ORDERS`
    :param sparsity: how much will go, for the order by losses
    :raises ValueError: for ``damp`` not above 0, another order, nothing accumulated, or all zero
    """
    require_damp(damp)
    if order not in ORDERS:
        raise ValueError(f"order is one of {ORDERS}, found {order!r}")
    layout, matrices = shared.layout, shared.matrices()
    device, groups = matrices.device, len(matrices)
    live = layout.places(device) if mask is None else layout.to_blocks((mask != 0).to(device))
    rows = layout.to_blocks(weight.detach().to(matrices)) * live
    rows, live = (one.view(groups, -1, layout.block_size) for one in (rows, live))
    mean = matrices.diagonal(dim1=1, dim2=2).double().mean(1)
    if not bool((mean > 0.0).any()):
        raise ValueError("what rows share is all zero, so there is nothing to prune by")
    mean[mean == 0.0] = float(mean.max())
    rounding = torch.finfo(matrices.dtype).eps
    exact = matrices.double()
    # columns that nothing is in are isolated
    used = live.any(1) & (exact.diagonal(dim1=1, dim2=2) > 0.0)
    exact = exact * used.unsqueeze(1) * used.unsqueeze(2)
    exact.diagonal(dim1=1, dim2=2).add_((~used).double() * mean.unsqueeze(1))
    lower, used_damp = damped_cholesky(exact, damp * mean, rounding)
    exact.diagonal(dim1=1, dim2=2).add_(used_damp.unsqueeze(1))
    inverse = torch.cholesky_inverse(lower)
    places = _places(rows, live, exact, inverse, order, sparsity, layout.group)
    if order != "natural":
        inverse = _permuted(inverse, places)
        exact = _permuted(exact, places)
        rows, live = (one.gather(2, places.unsqueeze(1).expand_as(one)) for one in (rows, live))
    upper = torch.linalg.cholesky(inverse.mT, upper=True)
    highest = float((used_damp / mean).max())
    return SharedRows(layout, rows, live, exact.to(rows), upper.to(rows), places, highest)


def _permuted(matrices: Tensor, places: Tensor) -> Tensor:
    by_rows = matrices.gather(1, places.unsqueeze(2).expand_as(matrices))
    return by_rows.gather(2, places.unsqueeze(1).expand_as(matrices))


def _places(
    rows: Tensor,
    live: Tensor,
    matrices: Tensor,
    inverse: Tensor,
    order: str,
    sparsity: float,
    run: int,
) -> Tensor:
    """The order in which columns are swept, ``[G, B]``."""
    groups, _, size = rows.shape
    natural = torch.arange(size, device=rows.device).expand(groups, -1)
    if order == "natural":
        return natural
    first = matrices.diagonal(dim1=1, dim2=2)
    if order == "loss":
        costs = rows.double() ** 2 / inverse.diagonal(dim1=1, dim2=2).unsqueeze(1)
        count = int(sparsity * size)
        lowest = costs.masked_fill(~live, 0.0).sort(dim=2)
        lost = torch.zeros_like(costs)
        lost.scatter_(2, lowest.indices[..., :count], lowest.values[..., :count])
        first = lost.sum(1)
    by_run = first.view(groups, -1, run).sum(2).argsort(dim=1, descending=True, stable=True)
    return (
        natural.view(groups, -1, run).gather(1, by_run.unsqueeze(2).expand(-1, -1, run)).flatten(1)
    )


def _sweep_groups(
    work: Tensor, keep: Tensor, live: Tensor, factor: Tensor, nm: tuple[int, int] | None
) -> None:
    """Sweep ``work`` ``[B, R]``, choosing again within groups of M; ``keep`` is brought up to date.

    What goes to columns further right is collected for a panel of columns and applied at once.
    """
    size, panel = len(work), 64
    diagonal = factor.diagonal().unsqueeze(1)
    width = panel if nm is None else -(-panel // nm[1]) * nm[1]
    for start in range(0, size, width):
        stop = min(start + width, size)
        errors = torch.zeros_like(work[start:stop])
        for i in range(start, stop):
            if nm is not None and i % nm[1] == 0:
                _choose(work, keep, live, diagonal, i, *nm)
            errors[i - start] = torch.where(keep[i], 0.0, work[i]) / factor[i, i]
            work[i] *= keep[i]
            work[i + 1 : stop].addr_(factor[i, i + 1 : stop], errors[i - start], alpha=-1)
        work[stop:].addmm_(factor[start:stop, stop:].T, errors, alpha=-1)


def _choose(
    work: Tensor, keep: Tensor, live: Tensor, diagonal: Tensor, start: int, n: int, m: int
) -> None:
    """Keep the N costliest of the group that begins here, where it keeps no more than N."""
    group = slice(start, start + m)
    costs = (work[group] / diagonal[group]) ** 2
    costs = costs.masked_fill(~live[group], -1.0)
    best = costs.argsort(dim=0, descending=True, stable=True)[:n]
    chosen = torch.zeros_like(keep[group]).scatter_(0, best, True) & live[group]
    full = keep[group].sum(0) <= n
    keep[group] = torch.where(full, chosen, keep[group])
