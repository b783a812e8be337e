r"""Removing whole units by the Fisher matrix of gates on them.

A gate of 1 on a unit takes part in the loss as the unit does, so that removing units means to set
gates to 0. To second order this costs :math:`\tfrac12 (a - 1)^T F (a - 1)`, where F is the mean of
the outer products of the gates' gradients; the gates that stay may move to make up for it (optimal
brain surgery, Hassibi and Stork, 1993, on gates in place of weights).
"""

from __future__ import annotations

import torch
from torch import Tensor


def damped(fisher: Tensor, damp: float) -> Tensor:
    """Return a Fisher matrix with a share of its mean diagonal added to the diagonal, float64.

    :param fisher: ``[units, units]``
    """
    matrix = fisher.double()
    added = damp * matrix.diagonal().mean() + torch.finfo(torch.float32).tiny
    return matrix + added * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)


def removal_losses(fisher: Tensor, gone: Tensor | None = None) -> Tensor:
    """Eliminate the cheapest unit again and again; what is left makes up for each at once.

    :param fisher: ``[units, units]``, positive definite, float64
    :param gone: bool ``[units]``, those that were removed before; they cost nothing
    :return: ``[units]``, the loss when a unit and all that are cheaper have gone. The k lowest are
        the k units to remove
    """
    size = len(fisher)
    open_ = torch.ones(size, dtype=torch.bool, device=fisher.device)
    if gone is not None:
        open_ &= ~gone.to(fisher.device)
    isolated = fisher * open_ * open_.unsqueeze(1)
    isolated.diagonal()[~open_] = 1.0
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(isolated))
    gates, losses = open_.to(fisher.dtype), torch.zeros_like(fisher[0])
    total = torch.zeros_like(losses[0])
    for _ in range(int(open_.sum())):
        diagonal = inverse.diagonal()
        costs = (gates**2 / (2 * diagonal)).masked_fill(~open_, torch.inf)
        unit = costs.argmin()
        total = total + costs[unit]
        losses[unit] = total
        column = inverse[:, unit] / inverse[unit, unit]
        gates = gates - column * gates[unit]
        inverse = inverse - torch.outer(column, inverse[unit])
        # what has gone takes part no more, and its pivots are no numbers
        open_[unit] = False
        inverse[unit], inverse[:, unit] = 0.0, 0.0
        inverse[unit, unit] = 1.0
        gates[unit] = 0.0
    return losses


def made_up(fisher: Tensor, keep: Tensor, before: Tensor | None = None) -> Tensor:
    """Return the gates that make up best for the units that go.

    :param fisher: ``[units, units]``, positive definite
    :param keep: bool ``[units]``
    :param before: bool ``[units]``, what was there before; what was not needs no making up for
    :return: ``[units]``, 0 for those that go
    """
    going = ~keep if before is None else before & ~keep
    gates = torch.zeros_like(fisher[0])
    kept = keep.nonzero()[:, 0]
    block = fisher[kept][:, kept]
    pull = fisher[kept][:, going].sum(dim=1)
    gates[kept] = 1.0 + torch.linalg.solve(block, pull)
    return gates
