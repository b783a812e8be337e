r"""The best weights of whole rows, once it is decided which of them stay.

Where all rows w of a weight share one matrix F, the quadratic loss
:math:`\tfrac12 (v - w)^T F (v - w)` with v zero where pruned is least for

.. math:: v_K = w_K + F_{KK}^{-1} F_{KP} \, w_P

with K what is kept of the row, and P what is not: one Cholesky factor for each row, of a matrix
that all share (as in OPTIMA, arXiv 2512.13886).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.linalg import map_rows

_CHUNK_BYTES = {True: 1 << 22, False: 1 << 28}  # on the CPU or not


def solve_rows(weights: Tensor, matrix: Tensor, keep: Tensor) -> Tensor:
    """Return the rows of least quadratic loss that are zero where not kept.

    Takes ``R K^3 / 3`` multiply-adds for rows that keep K entries, in double precision.

    :param weights: ``[R, B]`` before pruning
    :param matrix: positive definite, ``[B, B]``, dampened
    :param keep: bool, ``[R, B]``
    :return: ``[R, B]``, dtype of ``weights``
    """
    most = int(keep.sum(1).max()) if len(keep) else 0
    # what is kept first; further places of a row are isolated
    places = keep.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    inside = keep.gather(1, places)
    exact = matrix.double()
    new = torch.zeros_like(weights)

    def work(start: int, stop: int) -> None:
        place, there = places[start:stop], inside[start:stop]
        old = weights[start:stop].double()
        gone = torch.where(keep[start:stop], 0.0, old)
        wanted = (gone @ exact).gather(1, place) * there
        parts = exact[place.unsqueeze(2), place.unsqueeze(1)]
        parts = parts * (there.unsqueeze(1) & there.unsqueeze(2))
        parts.diagonal(dim1=1, dim2=2).add_((~there).double())
        factor = torch.linalg.cholesky(parts)
        solved = torch.cholesky_solve(wanted.unsqueeze(2), factor).squeeze(2)
        values = (old.gather(1, place) + solved) * there
        new[start:stop].scatter_(1, place, values.to(new))

    if most:
        device = weights.device
        row_bytes = 16 * most * most
        map_rows(work, len(weights), row_bytes, _CHUNK_BYTES[device.type == "cpu"], device)
    return new
