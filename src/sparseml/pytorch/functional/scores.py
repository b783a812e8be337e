"""How important a weight is, and what keeps it so. Higher scores are kept.

Scores are elementwise, so they have the weight's shape. What a score needs over time (sums, running
means) is kept by the caller.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns import PerTensor, reduce_dims
from sparseml.pytorch.functional.selection import lowest_mask


def magnitude(weight: Tensor) -> Tensor:
    """Absolute value: Han et al., "Learning both weights and connections" (2015)."""
    return weight.detach().abs()


def gradient(weight: Tensor, grad: Tensor) -> Tensor:
    """Absolute value of the gradient, whatever the weight.

    :return: at least float32
    """
    return _wide(grad).abs()


def movement(weight: Tensor, grad: Tensor, rate: float = 0.01) -> Tensor:
    r"""One step's contribution to the movement score, :math:`-\eta\, g\, w`.

    Summed over training steps it is large for weights that move away from zero: Sanh et al.,
    "Movement pruning" (2020), equation (2). ``rate`` scales all scores alike.

    :return: at least float32, so that small products of half precision do not vanish
    """
    return product(weight, grad) * -rate


def product(weight: Tensor, grad: Tensor) -> Tensor:
    r"""First-order gain of the loss when the weight is removed, :math:`g\, w`, with its sign.

    :return: at least float32
    """
    return _wide(grad) * _wide(weight)


def saliency(weight: Tensor, grad: Tensor) -> Tensor:
    r"""First-order change of the loss when the weight is removed, :math:`|g\, w|`.

    Lee et al., "SNIP: single-shot network pruning based on connection sensitivity" (2019).

    :return: at least float32
    """
    return product(weight, grad).abs_()


def mask_gradients(weight: Tensor, grad: Tensor, units: PerTensor) -> Tensor:
    r"""Gradient of the loss in a factor on each unit, :math:`\sum_{i \in \text{unit}} g_i w_i`.

    It is that of a forward pass with :math:`m\, w` in place of each unit's weights, at
    :math:`m = 1`; summing up what the weights have themselves spares that forward pass.

    :return: one value per unit, with its sign; at least float32
    """
    folded, dims = units.fold(product(weight, grad))
    return reduce_dims(folded, dims, "sum")


def shared_in_units(values: Tensor, units: PerTensor, reduce: str) -> Tensor:
    """Give each weight the magnitude of what its unit's values come to.

    :param values: ``[out, in, *kernel]``
    :param reduce: how they are summed up: ``sum``, with their signs, or ``max``
    """
    folded, dims = units.fold(values)
    return units.spread(reduce_dims(folded, dims, reduce).abs(), values.shape)


def with_momentum(total: Tensor, score: Tensor, decay: float = 0.9, gain: float = 1.0) -> Tensor:
    r"""One step of a running score, :math:`q \leftarrow \alpha\, q + \beta\, s`.

    With :func:`saliency` it is Intel Neural Compressor's ``snip_momentum``. A score :math:`c` at
    each of :math:`n` steps adds up to :math:`\beta\, c\, (1 - \alpha^n) / (1 - \alpha)`.

    :param total: :math:`q`, of any floating-point type, which the result has as well
    :param score: :math:`s`, at least 0; if it is not finite anywhere, ``total`` stays as it is
    :param decay: :math:`\alpha`; 0 for the last step alone
    :param gain: :math:`\beta`
    """
    gained = score if gain == 1.0 else score * gain
    new = torch.add(gained, total, alpha=decay).to(total.dtype)
    # without asking for the value, so that a GPU is not waited for
    return torch.where(score.sum().isfinite(), new, total)


def drop_and_grow_scores(weight: Tensor, gradient: Tensor, kept: int) -> Tensor:
    """Scores by which the largest weights stay, and those with the largest gradients fill up.

    Evci et al., "Rigging the lottery: making all tickets winners" (2020), algorithm 1. Connections
    that are dropped may grow again at once.

    :param weight: values, 0 where there is no connection
    :param gradient: of the loss in all weights, those without a connection included
    :param kept: how many weights stay for their magnitude
    :return: the highest number of the dtype for these, elsewhere the gradient's magnitude; shape of
        the weight, at least float32
    """
    scores = _wide(gradient).abs()
    stays = lowest_mask(magnitude(weight), weight.numel() - kept)
    return scores.masked_fill(stays, torch.finfo(scores.dtype).max)


def exploration_decay(
    weight: Tensor, forward_mask: Tensor, backward_mask: Tensor, rate: float, density: float
) -> Tensor:
    r"""Shrink weights, those that only explore the more so: Jayakumar et al., "Top-KAST" (2021).

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


def _wide(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor if tensor.dtype == torch.float64 else tensor.float()
