"""Penalties that make activations sparse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

PENALTIES = ("l1", "l2", "relu", "hs")
"""Sum of sizes, of squares, of what is positive; squared sum of sizes over sum of squares."""


def activation_penalty(tensors: Sequence[Tensor], kind: str) -> Tensor:
    r"""The penalty of each tensor, divided by its batch size, averaged over the tensors.

    ``l1`` is :math:`\sum |x|`, ``l2`` :math:`\sum x^2`, ``relu`` :math:`\sum \max(x, 0)` and
    ``hs``, Hoyer's square, :math:`(\sum |x|)^2 / \sum x^2` (0 for zeros), which counts non-zeros
    whatever their size: Kurtz et al., "Inducing and exploiting activation sparsity" (2020).

    :param tensors: activations, batch first
    :param kind: one of :data:`PENALTIES`
    :return: 0-d, at least float32; 0 for no tensors
    :raises ValueError: for another ``kind``
    """
    if kind not in PENALTIES:
        raise ValueError(f"kind must be one of {PENALTIES}, found {kind!r}")
    if not tensors:
        return torch.zeros(())
    values = [
        _penalty(x if x.dtype == torch.float64 else x.float(), kind) / max(len(x), 1)
        for x in (tensor.reshape(1) if tensor.ndim == 0 else tensor for tensor in tensors)
    ]
    return torch.stack(values).mean()


def _penalty(x: Tensor, kind: str) -> Tensor:
    if kind == "l1":
        return x.abs().sum()
    if kind == "l2":
        return x.square().sum()
    if kind == "relu":
        return x.relu().sum()
    squares = x.square().sum()
    return x.abs().sum().square() / squares.clamp_min(torch.finfo(x.dtype).tiny)
