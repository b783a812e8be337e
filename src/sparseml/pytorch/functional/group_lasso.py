r"""Shrinking the weights of units together, so that whole units get close to zero.

Group lasso adds :math:`\lambda \sum_u \lVert w_u \rVert_2` to the loss: Yuan and Lin, "Model
selection and estimation in regression with grouped variables" (2006). Here the shrinking is a step
of its own after each optimizer step, whatever the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns import PerTensor, reduce_dims

_EPSILON = 1e-12

Factors = Callable[[Tensor, PerTensor, float], Tensor]


def factors_by_weight(weight: Tensor, units: PerTensor, strength: float) -> Tensor:
    r"""Return :math:`\max(0, 1 - \lambda / \lVert w_u \rVert_2)`, the proximal step of group lasso.

    :param weight: ``[out, in, *kernel]``
    :param units: blocks or slices, which are shrunk together
    :param strength: :math:`\lambda`; a unit's norm falls by it, to no less than 0
    :return: what to multiply each weight by, shape of the weight, at least float32
    """
    norms = _norms(weight, units)
    return units.spread((1.0 - strength / norms).clamp_min(0.0), weight.shape)


def factors_by_gradient(grad: Tensor, units: PerTensor, strength: float) -> Tensor:
    r"""Return :math:`1 - c` with :math:`c = \lambda / (\lVert g_u \rVert_2 + 10^{-12})`.

    So Intel Neural Compressor shrinks units, the more so the less gradient they get. Here units
    without any gradient stay as they are, and :math:`c` is at most 1, where it could turn weights
    round and blow them up.

    :param grad: of the weights, as the optimizer gets it; otherwise as :func:`factors_by_weight`
    """
    norms = _norms(grad, units)
    share = (strength / (norms + _EPSILON)).clamp_max(1.0)
    return units.spread(torch.where(norms == 0.0, 1.0, 1.0 - share), grad.shape)


def _norms(values: Tensor, units: PerTensor) -> Tensor:
    folded, dims = units.fold(values.detach())
    return reduce_dims(folded, dims, "l2")
