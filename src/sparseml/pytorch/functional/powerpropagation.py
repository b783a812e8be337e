"""Weights that stand for a power of themselves: Schwarz et al., "Powerpropagation" (2021).

A weight w acts as :math:`w |w|^{\\alpha - 1}`. Large weights then move faster than small ones, so
more and more of them end up near zero, where pruning does no harm.
"""

from __future__ import annotations

import torch
from torch import Tensor


def powerpropagated(weight: Tensor, alpha: float | Tensor) -> Tensor:
    r""":math:`w |w|^{\alpha - 1}`, equation (1), with finite gradients for weights that are zero.

    :param weight: any shape
    :param alpha: at least 1; a number or a 0-d tensor
    """
    is_zero = weight == 0
    # the power of a size of 0 has no finite derivative for alpha below 2
    sizes = torch.where(is_zero, 1.0, weight.abs())
    at_zero = torch.zeros_like(weight) ** (alpha - 1)
    return weight * torch.where(is_zero, at_zero, sizes ** (alpha - 1))


@torch.no_grad()
def rescaled(
    weight: Tensor, grad: Tensor | None, old_alpha: float, new_alpha: float
) -> tuple[Tensor, Tensor | None]:
    r"""The weight that at ``new_alpha`` acts as the given one does at ``old_alpha``.

    :math:`w |w|^{\alpha_{old} / \alpha_{new} - 1}`, and the gradient by the chain rule.

    :param weight: any shape
    :param grad: its gradient, or None
    """
    rescaled_weight = weight.sign() * weight.abs() ** (old_alpha / new_alpha)
    if grad is None:
        return rescaled_weight, None
    ratio = new_alpha / old_alpha
    slope = ratio * rescaled_weight.abs() ** (ratio - 1)
    # where the slope is not finite the gradient is zero already
    return rescaled_weight, torch.where(slope.isfinite(), grad * slope, 0.0)
