r"""M-FAC: products with the inverse of a low-rank Fisher matrix that is never formed.

.. math:: F = \lambda I + \frac{1}{N} G^T G, \qquad
          F^{-1} = \frac{1}{\lambda} I - V^T V, \qquad
          V = L^{-1} G / \lambda, \quad L L^T = N I + G G^T / \lambda

with gradients G ``[N, D]`` (Frantar, Kurtic & Alistarh, "M-FAC: Efficient Matrix-Free
Approximations of Second-Order Information", 2021). The rows of V are the paper's recursively
computed :math:`h_i / \sqrt{q_i}`; here one Cholesky factor of an N x N matrix gives all of them by
matrix products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.fisher import add_products, invert_blocks
from sparseml.pytorch.functional.second_order.linalg import exact_arithmetic, require_damp

__all__ = [
    "FisherInverse",
    "FisherInverseFast",
    "FisherInverseFastBlock",
    "FisherInverseFastPageSwap",
    "FisherInverseFastSmallBlocks",
    "mfac_inverse",
    "mfac_scores",
    "mfac_update",
]

_COLUMNS = 1 << 12
_SMALL_BLOCKS_BYTES = 1 << 26

Devices = Sequence[torch.device | str] | None


class FisherInverse(ABC):
    """The inverse of a Fisher matrix over D weights."""

    _diagonal: Tensor

    def diag(self) -> Tensor:
        """Its diagonal, ``[D]``."""
        return self._diagonal.clone()

    @abstractmethod
    def mul(self, x: Tensor) -> Tensor:
        """Its product with a vector ``[D]``."""


def _require_grads(grads: Tensor, damp: float, block_size: int = 1) -> None:
    require_damp(damp)
    if grads.ndim != 2 or 0 in grads.shape or not grads.is_floating_point():
        raise ValueError(
            f"gradients are a float matrix [N, D] with N, D > 0, found {grads.dtype} of shape "
            f"{tuple(grads.shape)}"
        )
    if block_size < 1:
        raise ValueError(f"block_size is at least 1, found {block_size}")


class FisherInverseFast(FisherInverse):
    """The inverse as a diagonal minus N rank-one terms. Overwrites ``grads``.

    :param grads: ``[N, D]``, one gradient per row
    :param damp: absolute
    :param device: where to compute, a few thousand weights at a time; that of ``grads`` by default
    :param columns: how many weights at a time
    :param diagonal: memory for its diagonal, ``[D]``; new by default
    :raises ValueError: for ``damp`` not above 0, other shapes, or gradients that are not finite
    """

    def __init__(
        self,
        grads: Tensor,
        damp: float = 1e-5,
        *,
        device: torch.device | str | None = None,
        columns: int = _COLUMNS,
        diagonal: Tensor | None = None,
    ) -> None:
        _require_grads(grads, damp)
        self._damp, self._rows = damp, grads.detach()
        self._diagonal = grads.new_empty(grads.shape[1]) if diagonal is None else diagonal
        where, count = torch.device(grads.device if device is None else device), len(grads)
        parts = self._rows.split(columns, dim=1)
        with exact_arithmetic(where):
            gram = torch.zeros(count, count, dtype=torch.float64, device=where)
            for part in parts:
                wide = part.to(where, torch.float64)
                gram.addmm_(wide, wide.T)
            if not bool(gram.isfinite().all()):
                raise ValueError("gradients hold values that are not finite")
            gram.div_(damp).diagonal().add_(count)
            root = torch.linalg.cholesky(gram)
            # G becomes V; the diagonal is taken while it is at hand in double precision
            for part, own in zip(parts, self._diagonal.split(columns), strict=True):
                wide = part.to(where, torch.float64)
                solved = torch.linalg.solve_triangular(root, wide, upper=False).div_(damp)
                own.copy_(1.0 / damp - solved.square().sum(0))
                part.copy_(solved)

    def mul(self, x: Tensor) -> Tensor:
        with exact_arithmetic(x.device):
            x = x.detach().to(self._rows)
            return x / self._damp - self._rows.T @ (self._rows @ x)


class FisherInverseFastPageSwap(FisherInverseFast):
    """The same for gradients that do not fit the device: they stay where they are.

    :param num_pages: in how many pieces the gradients are brought to the device, one at a time
    :param devices: the first of them computes; that of ``grads`` by default
    :raises ValueError: unless ``num_pages`` divides the number of gradients
    """

    def __init__(
        self, grads: Tensor, damp: float = 1e-5, num_pages: int = 1, devices: Devices = None
    ) -> None:
        if num_pages < 1 or grads.shape[0] % num_pages:
            raise ValueError(
                f"num_pages must divide the number of gradients ({grads.shape[0]}), found "
                f"{num_pages}"
            )
        columns = -(-grads.shape[1] // num_pages)
        device = devices[0] if devices else None
        super().__init__(grads, damp, device=device, columns=max(1, columns))


class FisherInverseFastBlock(FisherInverse):
    """One :class:`FisherInverseFast` per block of consecutive weights. Overwrites ``grads``.

    :param block_size: weights per block; the last block may be smaller
    :param devices: blocks are computed on these in turn; on that of ``grads`` by default
    """

    def __init__(
        self, grads: Tensor, block_size: int, damp: float = 1e-5, devices: Devices = None
    ) -> None:
        _require_grads(grads, damp, block_size)
        used = devices or [grads.device]
        self._block_size = block_size
        # one piece of memory: small ones between large temporary ones would scatter these
        self._diagonal = grads.new_empty(grads.shape[1])
        parts = zip(grads.split(block_size, dim=1), self._diagonal.split(block_size), strict=True)
        self._blocks = [
            FisherInverseFast(part, damp, device=used[i % len(used)], diagonal=diagonal)
            for i, (part, diagonal) in enumerate(parts)
        ]

    def mul(self, x: Tensor) -> Tensor:
        parts = zip(self._blocks, x.split(self._block_size), strict=True)
        return torch.cat([block.mul(part) for block, part in parts])


class FisherInverseFastSmallBlocks(FisherInverse):
    """A dense inverse per block of consecutive weights; leaves ``grads`` alone.

    Takes D times ``block_size`` values. The better choice where blocks are not larger than the
    number of gradients.

    :param block_size: weights per block; the last block is filled up
    :param devices: consecutive blocks are shared out over these; that of ``grads`` by default
    :param alpha: 0, the only value that is known; kept for old calls
    :raises ValueError: for another ``alpha``
    """

    def __init__(
        self,
        grads: Tensor,
        block_size: int,
        damp: float = 1e-5,
        devices: Devices = None,
        alpha: float = 0.0,
    ) -> None:
        _require_grads(grads, damp, block_size)
        if alpha != 0.0:
            raise ValueError(f"alpha is kept for old calls and must be 0, found {alpha!r}")
        self._size, self._home = grads.shape[1], grads.device
        block_size = min(block_size, self._size)
        used = [torch.device(device) for device in devices or [grads.device]]
        blocks = -(-self._size // block_size)
        share = -(-blocks // len(used)) * block_size
        self._share, self._damp = share, damp
        self._inverses = [
            self._invert(part, block_size, device)
            for part, device in zip(grads.detach().split(share, dim=1), used, strict=False)
        ]

    def _invert(self, grads: Tensor, block_size: int, device: torch.device) -> Tensor:
        """``[R, B, B]`` for consecutive weights of one device, computed in double precision."""
        count, size = grads.shape
        blocks = -(-size // block_size)
        inverse = grads.new_empty(blocks, block_size, block_size, device=device)
        rows = max(1, _SMALL_BLOCKS_BYTES // (8 * block_size * max(block_size, count)))
        for start in range(0, blocks, rows):
            into = inverse[start : start + rows]
            width = len(into) * block_size
            part = grads[:, start * block_size :][:, :width].to(device, torch.float64)
            places = torch.arange(width, device=device) < part.shape[1]
            part = torch.nn.functional.pad(part, (0, width - part.shape[1]))
            wide = torch.zeros(into.shape, dtype=torch.float64, device=device)
            add_products(wide, part.view(count, -1, block_size).transpose(0, 1).contiguous())
            invert_blocks(wide, count, self._damp, places.view(-1, block_size))
            into.copy_(wide)
        return inverse

    def diag(self) -> Tensor:
        diagonals = [h.diagonal(dim1=1, dim2=2).flatten().to(self._home) for h in self._inverses]
        return torch.cat(diagonals)[: self._size]

    def mul(self, x: Tensor) -> Tensor:
        products = []
        for inverse, part in zip(self._inverses, x.detach().split(self._share), strict=True):
            rows, size, _ = inverse.shape
            padded = torch.nn.functional.pad(part.to(inverse), (0, rows * size - len(part)))
            with exact_arithmetic(inverse.device):
                product = torch.bmm(inverse, padded.view(rows, size, 1))
            products.append(product.flatten()[: len(part)].to(self._home))
        return torch.cat(products)


def mfac_inverse(
    grads: Tensor,
    damp: float,
    block_size: int | None = None,
    num_pages: int = 1,
    devices: Devices = None,
    implementation: str = "auto",
) -> FisherInverse:
    """One of the forms above; all give the same numbers.

    :param grads: ``[N, D]``; may be overwritten
    :param block_size: None or 0 for one block of all weights
    :param implementation: of several blocks: ``block``, ``small_block``, or ``auto`` for the
        cheapest
    """
    if not block_size:
        if num_pages > 1 or devices:
            return FisherInverseFastPageSwap(grads, damp, num_pages, devices)
        return FisherInverseFast(grads, damp)
    small = {"small_block": True, "block": False}.get(implementation, block_size <= len(grads))
    form = FisherInverseFastSmallBlocks if small else FisherInverseFastBlock
    return form(grads, block_size, damp, devices)


def mfac_scores(weights: Tensor, inverse: FisherInverse) -> Tensor:
    """What removing each weight alone would cost, ``w^2 / (2 diag)``, ``[D]``."""
    return weights**2 / (2 * inverse.diag().to(weights))


def mfac_update(weights: Tensor, inverse: FisherInverse, pruned: Tensor) -> Tensor:
    """Remove weights, each compensated as if it were the only one.

    :param weights: ``[D]``
    :param pruned: bool, ``[D]``
    :return: new weights, exactly zero where pruned
    """
    errors = torch.where(pruned, weights / inverse.diag().to(weights), 0.0)
    return torch.where(pruned, 0.0, weights - inverse.mul(errors).to(weights))
