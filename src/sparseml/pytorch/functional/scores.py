"""How important a weight is. Higher scores are kept.

Scores are elementwise, so they have the weight's shape. What a score needs over time (sums, running
means) is kept by the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["magnitude", "movement", "saliency"]


def magnitude(weight: Tensor) -> Tensor:
    """Absolute value: Han et al., "Learning both weights and connections" (2015)."""
    return weight.detach().abs()


def movement(weight: Tensor, grad: Tensor, rate: float = 0.01) -> Tensor:
    r"""One step's contribution to the movement score, :math:`-\eta\, g\, w`.

    Summed over training steps it is large for weights that move away from zero: Sanh et al.,
    "Movement pruning" (2020), equation (2). ``rate`` scales all scores alike.

    :return: at least float32, so that small products of half precision do not vanish
    """
    return _wide(grad) * _wide(weight) * -rate


def saliency(weight: Tensor, grad: Tensor) -> Tensor:
    r"""First-order change of the loss when the weight is removed, :math:`|g\, w|`.

    Lee et al., "SNIP: single-shot network pruning based on connection sensitivity" (2019).

    :return: at least float32
    """
    return (_wide(grad) * _wide(weight)).abs()


def _wide(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor if tensor.dtype == torch.float64 else tensor.float()
