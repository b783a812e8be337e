"""The block Fisher inverse under the name and with the methods that it had in SparseML 1.x."""

from __future__ import annotations

import torch
from torch import Tensor

from sparseml.pytorch.functional.block_inverse import BlockInverse
from sparseml.pytorch.functional.block_layout import block_layout
from sparseml.pytorch.functional.fisher import BlockFisher, require_damp

__all__ = ["EmpiricalBlockFisherInverse"]


class EmpiricalBlockFisherInverse:
    """Add gradients, then ask for the diagonal of the inverse or for products with it.

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
        self._inverse: BlockInverse | None = None

    def add_grad(self, g: Tensor) -> None:
        """Add a gradient ``[D]``.

        :raises RuntimeError: after the inverse has been formed
        """
        if self._inverse is not None:
            raise RuntimeError("gradients cannot be added after diag() or mul()")
        self._fisher.accumulate(g)

    @property
    def f_inv(self) -> BlockInverse:
        """The inverse, formed when it is first asked for."""
        if self._inverse is None:
            self._inverse = self._fisher.factor(self._damp, count=self._num_grads)
        return self._inverse

    def diag(self) -> Tensor:
        """Diagonal of the inverse, ``[D]``."""
        return self.f_inv.diag()

    def mul(self, v: Tensor) -> Tensor:
        """Product of the inverse with a vector ``[D]``."""
        return self.f_inv.mul(v)
