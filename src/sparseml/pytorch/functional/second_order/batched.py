"""Second-order pruning of many blocks at once by batched matrix products, on any device.

The blocks of a chunk advance in lock step. Downdates of the inverse are collected for a panel of
steps and applied by one matrix product; within a panel only the rows that are needed are brought
up to date. After each panel the groups that are gone are squeezed out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.linalg import damped_cholesky, map_rows

_PANEL = 32
_CHUNK_BYTES = {True: 1 << 24, False: 1 << 28}  # on the CPU or not


class _Front:
    """The remaining groups of some blocks, and the downdated inverse among them.

    With r blocks, n groups left in each (some of them closed) and k entries per group: ``place``
    and ``open`` ``[r, n]``, ``weight`` and ``floor`` ``[r, n, k]``, ``matrix`` ``[r, n k, n k]``
    without the downdates of the rows in ``panel`` ``[r, steps, n k]``, ``diagonal``
    ``[r, n, k, k]`` with them.
    """

    def __init__(
        self, weights: Tensor, inverse: Tensor, floor: Tensor, live: Tensor, group: int
    ) -> None:
        rows, size = weights.shape
        self.group = group
        self.place = torch.arange(size // group, device=weights.device).expand(rows, -1)
        self.open = live.view(rows, -1, group).any(-1)
        self.weight = weights.view(rows, -1, group)
        self.floor = floor.view(rows, -1, group)
        self.matrix = inverse
        blocks = inverse.view(rows, -1, group, size // group, group).diagonal(dim1=1, dim2=3)
        self.diagonal = blocks.movedim(-1, 1).contiguous()
        self.panel = weights.new_zeros(rows, max(_PANEL, group), size)
        self.filled = 0
        self.block = torch.arange(rows, device=weights.device)
        self.squeeze()

    def scores(self) -> Tensor:
        """``w_g^T (H_gg)^-1 w_g``, ``[r, n]``; infinite where closed."""
        solved: list[Tensor] = []
        root: dict[tuple[int, int], Tensor] = {}
        for a in range(self.group):
            own = self.weight[..., a]
            for b in range(a):
                entry = self.diagonal[..., a, b]
                for c in range(b):
                    entry = entry - root[a, c] * root[b, c]
                root[a, b] = entry / root[b, b]
                own = own - root[a, b] * solved[b]
            pivot = self.diagonal[..., a, a]
            for c in range(a):
                pivot = pivot - root[a, c] ** 2
            root[a, a] = pivot.clamp_min(self.floor[..., a]).sqrt()
            solved.append(own / root[a, a])
        total = sum(part**2 for part in solved)
        return torch.where(self.open, total, torch.inf)

    def eliminate(self, chosen: Tensor, active: Tensor) -> Tensor:
        """Remove one group of every active block; return the increase of twice the loss, ``[r]``.

        :param chosen: slot of the group, ``[r]``
        :param active: 1 or 0, ``[r]``
        """
        increase = torch.zeros_like(active)
        for a in range(self.group):
            slot = chosen * self.group + a
            row = self.matrix[self.block, slot]
            if self.filled:
                past = self.panel[:, : self.filled]
                factors = past[self.block, :, slot].unsqueeze(1)
                row = row - torch.bmm(factors, past).squeeze(1)
            pivot = row[self.block, slot].clamp_min(self.floor[self.block, chosen, a])
            scale = active * pivot.rsqrt()
            step = self.weight[self.block, chosen, a] * scale
            increase += step**2
            # append the row to the factor; bring weights and diagonal blocks up to date
            new = row * scale.unsqueeze(1)
            self.panel[:, self.filled] = new
            entries = new.view(self.weight.shape)
            self.filled += 1
            self.weight = self.weight - step.view(-1, 1, 1) * entries
            if self.group == 1:
                self.diagonal[..., 0].addcmul_(entries, entries, value=-1)
            else:
                self.diagonal -= entries.unsqueeze(-1) * entries.unsqueeze(-2)
            variances = self.diagonal.diagonal(dim1=-2, dim2=-1)
            torch.maximum(variances, self.floor, out=variances)
        self.open[self.block, chosen] &= active == 0
        return increase

    def squeeze(self) -> None:
        """Apply the panel's downdates and drop groups that are closed in all or enough blocks."""
        panel = self.panel[:, : self.filled]
        if self.filled:
            self.matrix = torch.baddbmm(self.matrix, panel.mT, panel, alpha=-1)
        most = int(self.open.sum(1).amax())
        # stable: the first index must stay first, for it wins ties
        keep = self.open.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
        entries = keep.unsqueeze(-1) * self.group
        entries = (entries + torch.arange(self.group, device=keep.device)).flatten(1)
        block, left = self.block.unsqueeze(1), keep
        self.place, self.open = self.place[block, left], self.open[block, left]
        self.weight, self.floor = self.weight[block, left], self.floor[block, left]
        self.diagonal = self.diagonal[block, left]
        self.matrix = self.matrix[block.unsqueeze(2), entries.unsqueeze(2), entries.unsqueeze(1)]
        self.panel = self.panel[:, :, : entries.shape[1]].contiguous()
        self.filled = 0


def eliminate(
    weights: Tensor,
    inverse: Tensor,
    floor: Tensor,
    live: Tensor,
    order: Tensor,
    losses: Tensor,
    limit: float,
    group: int,
    nm: tuple[int, int] | None,
) -> None:
    """Eliminate groups of blocks, as :func:`.elimination.eliminate` says.

    :param order: -1 (int16) and ``losses`` inf, ``[R, depth]``, to write into
    """
    rows, size = weights.shape
    keep, of = nm or (0, 1)

    def work(start: int, stop: int) -> None:
        part = slice(start, stop)
        front = _Front(weights[part], inverse[part], floor[part], live[part], group)
        gone = (~live[part]).view(stop - start, -1, of).sum(-1)
        total = losses.new_zeros(stop - start)
        for step in range(order.shape[1]):
            if nm is not None:
                front.open &= gone.gather(1, front.place // of) < of - keep
            if front.filled + group > front.panel.shape[1]:
                front.squeeze()
            if front.place.shape[1] == 0:
                return
            least, chosen = front.scores().min(1)
            active = (least < torch.inf) & (total / 2 <= limit)
            total += front.eliminate(chosen, active.to(total.dtype))
            place = front.place.gather(1, chosen.unsqueeze(1))
            order[part, step] = torch.where(active, place[:, 0], -1)
            losses[part, step] = torch.where(active, total / 2, torch.inf)
            if nm is not None:
                gone.scatter_add_(1, place // of, active.unsqueeze(1).to(gone.dtype))

    row_bytes = size * size * inverse.element_size()
    map_rows(work, rows, row_bytes, _CHUNK_BYTES[weights.is_cpu], weights.device)


def joint_update(
    weights: Tensor,
    inverse: Tensor,
    floor: Tensor,
    pruned: Tensor,
    updated: Tensor,
    losses: Tensor,
) -> None:
    """Write into ``updated`` and ``losses`` what :func:`.obs.joint_update` returns."""
    rows, size = weights.shape

    def work(start: int, stop: int) -> None:
        chosen = pruned[start:stop]
        matrix, weight = inverse[start:stop].double(), weights[start:stop].double()
        removed = torch.where(chosen, weight, 0.0).unsqueeze(-1)
        # The rest of the block becomes an identity, on which the solution is zero.
        inside = matrix * chosen.unsqueeze(1) * chosen.unsqueeze(2)
        inside.diagonal(dim1=1, dim2=2).add_((~chosen).double())
        tiny = torch.finfo(torch.float64).tiny
        factor, _ = damped_cholesky(inside, tiny, torch.finfo(weights.dtype).eps)
        solved = torch.cholesky_solve(removed, factor)
        result = weight - torch.bmm(matrix, solved).squeeze(-1)
        updated[start:stop] = torch.where(chosen, 0.0, result)
        losses[start:stop] = (removed * solved).sum((1, 2)) / 2

    row_bytes = size * size * inverse.element_size()
    map_rows(work, rows, row_bytes, _CHUNK_BYTES[weights.is_cpu], weights.device)
