"""Choosing units to prune by how their effects on the loss add up, not by each one's own."""

from __future__ import annotations

import torch
from torch import Tensor


def rearranged(kept: Tensor, gradients: Tensor, fixed: Tensor | None = None) -> Tensor:
    r"""Exchange pruned units for kept ones as long as the pruned ones together matter less.

    Kwon et al., "A fast post-training pruning framework for Transformers" (2022), section 4.2: to
    second order the loss grows with :math:`\lVert \sum_{u\ \text{pruned}} g_u \rVert^2`, where
    :math:`g_u` are the gradients of unit u's mask over the batches. The kept units are tried in the
    order of rising :math:`\lVert g_u \rVert^2`: each joins the pruned ones, and the one without
    which the norm of their sum is least becomes kept.

    :param kept: bool ``[units]``, True = keep
    :param gradients: of the masks, ``[batches, units]``
    :param fixed: bool ``[units]``, pruned units that stay so
    :return: bool ``[units]``, as many True as in ``kept``
    """
    vectors = gradients.double()
    squares = vectors.square().sum(0)
    pruned, movable = ~kept, torch.ones_like(kept) if fixed is None else ~fixed
    if not bool((pruned & movable).any()):
        return kept
    total = vectors[:, pruned].sum(1)
    tried = kept.nonzero()[:, 0]
    for unit in tried[squares[tried].argsort(stable=True)].tolist():
        pruned[unit] = True
        total = total + vectors[:, unit]
        # the norm of the sum without each, but for what is common to all
        without = squares - 2.0 * (total @ vectors)
        back = int(without.masked_fill(~(pruned & movable), torch.inf).argmin())
        pruned[back] = False
        total = total - vectors[:, back]
    return ~pruned
