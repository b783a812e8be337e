"""Cholesky factors of matrices that rounding may have made indefinite."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["damped_cholesky"]

_GROWTH = 10.0
_MOST_TRIES = 60


def damped_cholesky(
    matrices: Tensor, damp: float | Tensor, rounding: float
) -> tuple[Tensor, Tensor]:
    r"""Factor :math:`A + \lambda I = L L^T`, with as little more dampening as it takes.

    In exact arithmetic every pivot of a positive semidefinite A plus :math:`\lambda` is at least
    :math:`\lambda`. A pivot below half of it therefore shows that rounding errors in A have eaten
    the dampening and that the inverse would be noise along that direction. Such matrices are tried
    again with ten times the dampening, at least ``rounding`` times their mean diagonal.

    :param matrices: ``[R, B, B]``, symmetric (only the lower triangles are read), finite; not
        changed
    :param damp: :math:`\lambda` to start from, a number or one per matrix ``[R]``
    :param rounding: machine epsilon of the precision in which the matrices were accumulated
    :return: lower factors ``[R, B, B]``, and the dampening used, ``[R]``
    :raises ValueError: when a matrix is not finite, or far from positive semidefinite
    """
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    if not bool(diagonal.isfinite().all()):
        raise ValueError("matrices to factor hold values that are not finite")
    used = torch.empty(matrices.shape[:1], dtype=matrices.dtype, device=matrices.device)
    used[:] = damp
    factors, bad = _factor(matrices, used)
    least = rounding * diagonal.abs().mean(-1)
    tries = 0
    while bool(bad.any()):
        tries += 1
        if tries > _MOST_TRIES:
            raise ValueError("matrices to factor are not positive semidefinite")
        again = bad.nonzero()[:, 0]
        used[again] = torch.maximum(used[again] * _GROWTH, least[again])
        factors[again], bad[again] = _factor(matrices[again], used[again])
    return factors, used


def _factor(matrices: Tensor, damp: Tensor) -> tuple[Tensor, Tensor]:
    """Factors, and which of them cannot be trusted."""
    damped = matrices.clone()
    damped.diagonal(dim1=-2, dim2=-1).add_(damp.unsqueeze(-1))
    factors, info = torch.linalg.cholesky_ex(damped)
    pivots = factors.diagonal(dim1=-2, dim2=-1).amin(-1) ** 2
    # written so that NaN counts as bad
    return factors, (info != 0) | ~(pivots >= damp / 2)
