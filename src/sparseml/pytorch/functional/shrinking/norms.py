r"""Normalisation that leaves out what fades: its statistics weigh every unit by its gate.

With gates :math:`c`, :math:`C = \sum_i c_i`, the mean is :math:`\mu = \sum_i c_i z_i / C` and the
variance :math:`\sum_i c_i (z_i - \mu)^2 / C`. With all gates at 1 that is ordinary normalisation;
with gates at 0 and 1 it is that of the kept units alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_layer_norm(
    z: Tensor,
    gates: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    reference: bool = False,
) -> Tensor:
    r"""Return :math:`(z - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot w + b` over the last dimension.

    :param z: ``[..., units]``
    :param gates: ``[units]``; see :func:`require_gates`, which is not called here
    :param weight: ``[units]``, none for 1
    :param bias: ``[units]``, none for 0
    :param reference: divide by :math:`\sigma + \epsilon`, as the first implementation does
    :return: shape and dtype of ``z``; it is still to be multiplied by the gates
    """
    share = gates / gates.sum()
    centred = z - (z * share).sum(dim=-1, keepdim=True)
    variance = (centred.square() * share).sum(dim=-1, keepdim=True)
    normed = centred / (variance.sqrt() + eps) if reference else centred * (variance + eps).rsqrt()
    return _scaled(normed, weight, bias).to(z.dtype)


def weighted_rms_norm(
    z: Tensor, gates: Tensor, weight: Tensor | None = None, eps: float = 1e-6
) -> Tensor:
    r"""Return :math:`z / \sqrt{\sum_i c_i z_i^2 / C + \epsilon} \cdot w` over the last dimension.

    Shapes as of :func:`weighted_layer_norm`.
    """
    share = gates / gates.sum()
    square = (z.square() * share).sum(dim=-1, keepdim=True)
    return _scaled(z * (square + eps).rsqrt(), weight, None).to(z.dtype)


def unweighted_layer_norm(
    z: Tensor,
    original: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    r"""Return what layer normalisation gives where units have been removed that were 0.

    These still count: :math:`\mu = \sum_i z_i / n_0` and
    :math:`\sigma^2 = (\sum_i (z_i - \mu)^2 + (n_0 - n) \mu^2) / n_0`.

    :param z: ``[..., units]``, those that are left
    :param original: :math:`n_0`, how many there were
    """
    mean = z.sum(dim=-1, keepdim=True) / original
    centred, gone = z - mean, original - z.shape[-1]
    variance = (centred.square().sum(dim=-1, keepdim=True) + gone * mean.square()) / original
    return _scaled(centred * (variance + eps).rsqrt(), weight, bias)


def require_gates(gates: Tensor) -> None:
    """Check that statistics can be weighed by gates.

    :raises ValueError: if one is negative or not a number, or all of them are 0
    """
    if not bool((gates >= 0).all()):
        raise ValueError(f"gates must not be negative, found {float(gates.min()):g}")
    if not bool((gates > 0).any()):
        raise ValueError("at least one gate must be above 0, or there is nothing to normalise")


def _scaled(normed: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        normed = normed * weight
    return normed if bias is None else normed + bias


def gates_like(z: Tensor, gates: Tensor) -> Tensor:
    """Return gates of at least single precision for what is normalised, on its device."""
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    return gates.to(z.device, wide)
