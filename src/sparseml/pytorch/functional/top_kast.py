"""Always sparse training: Jayakumar et al., "Top-KAST: Top-K always sparse training" (2021)."""

from __future__ import annotations

from torch import Tensor

__all__ = ["exploration_decay"]


def exploration_decay(
    weight: Tensor, forward_mask: Tensor, backward_mask: Tensor, rate: float, density: float
) -> Tensor:
    r"""Shrink weights, those that only explore the more so.

    One step down the gradient of the exploration regulariser (section 2.3): active weights shrink
    by the factor :math:`1 - r`, those that only take gradients by :math:`1 - r / D`, so that of
    these just the useful ones become active. All others stay.

    :param weight: values as they are without masks
    :param forward_mask: 1 where a weight is active; shape of the weight
    :param backward_mask: 1 where a weight is updated; shape of the weight
    :param rate: :math:`r`, the strength of the decay times the learning rate
    :param density: :math:`D`, the fraction of active weights, above 0
    :return: the new values, with shape and dtype of ``weight``
    """
    exploring = backward_mask * (1 - forward_mask)
    return weight - rate * weight * (forward_mask + exploring / density)
