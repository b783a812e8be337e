"""The inverse block Fisher matrix of a weight, and pruning with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.functional.block_layout import BlockLayout
from sparseml.pytorch.functional.elimination import Elimination, eliminate
from sparseml.pytorch.functional.obs import joint_update, obs_scores, simultaneous_update

__all__ = ["BlockInverse"]


@dataclass(frozen=True)
class BlockInverse:
    """Made by :meth:`~sparseml.pytorch.functional.fisher.BlockFisher.factor`.

    Weights and masks are given and returned in the weight's own shape; those of an object that
    holds only a part of the blocks are zero (False) outside of it, or unchanged by it.

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

    def _whole(self, blocks: Tensor, like: Tensor | None = None) -> Tensor:
        """Blocks in the weight's shape; the rest as in ``like``, or zero."""
        if like is None:
            rows, size = self.layout.num_blocks, self.layout.block_size
            full = blocks.new_zeros(rows, size)
        else:
            full = self.layout.to_blocks(like.detach()).clone()
        full[self.part] = blocks.to(full)
        return self.layout.from_blocks(full)

    def diag(self) -> Tensor:
        """The diagonal of the inverse, in the weight's shape."""
        places = self.layout.places(self.inverse.device)[self.part]
        return self._whole(self.inverse.diagonal(dim1=1, dim2=2) * places)

    def mul(self, vector: Tensor) -> Tensor:
        """The product of the inverse with a tensor of the weight's shape."""
        product = torch.bmm(self.inverse, self.blocks_of(vector).unsqueeze(-1))
        return self._whole(product.squeeze(-1))

    def scores(self, weight: Tensor, group: int = 1) -> Tensor:
        """OBS scores (:func:`~sparseml.pytorch.functional.obs.obs_scores`) in the weight's shape.

        Weights that are gone already score -inf.
        """
        scores = obs_scores(self.blocks_of(weight), self.inverse, group)
        return self._whole(torch.where(self.live, scores, -torch.inf))

    def eliminate(
        self,
        weight: Tensor,
        *,
        depth: int | None = None,
        limit: float = float("inf"),
        nm: tuple[int, int] | None = None,
        blocks: bool = False,
        backend: str = "auto",
    ) -> Elimination:
        """Order and cumulative losses of removing weights one by one.

        See :func:`~sparseml.pytorch.functional.elimination.eliminate`. Give
        ``elimination.pruned(counts)`` to :meth:`update`.

        :param blocks: remove whole groups of the layout instead of single weights
        """
        return eliminate(
            self.blocks_of(weight),
            self.inverse,
            self.live,
            depth=depth,
            limit=limit,
            group=self.layout.group if blocks else 1,
            nm=nm,
            floor=self.floor,
            backend=backend,
        )

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

        :param weight: any float dtype and device
        :param pruned: bool, weights to remove: in the weight's shape, or blocks ``[R, B]``
        :param rule: ``joint`` or ``simultaneous``
        :param group: entries per group of the simultaneous rule
        :return: the new weight, dtype and device of ``weight``; and its loss in the quadratic
            model (nan for the simultaneous rule, which does not know it)
        :raises ValueError: for another rule
        """
        held = self.blocks_of(weight) * self.live
        gone = pruned if pruned.shape == self.live.shape else self.blocks_of(pruned)
        gone = gone.to(self.live.device) & self.live
        loss = float("nan")
        if rule == "joint":
            new, losses = joint_update(held, self.inverse, gone, floor=self.floor, backend=backend)
            loss = float(losses.sum(dtype=torch.float64))
        elif rule == "simultaneous":
            new = simultaneous_update(held, self.inverse, gone, group)
        else:
            raise ValueError(f"the rule is 'joint' or 'simultaneous', found {rule!r}")
        return self._whole(new, like=weight), loss
