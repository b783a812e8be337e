"""How far the output of a block is from what it was before it was pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LOSSES = ("nmse", "mse", "cosine")


def block_error(
    output: Tensor, target: Tensor, kind: str, real: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return an error as two sums, of which the loss is the quotient; float32 or more.

    :param output: of the pruned block
    :param target: of the original, of the same shape ``[..., features]``
    :param kind: ``nmse``, squared differences over squared targets; ``mse``, over their number; or
        ``cosine``, one less the cosine of each position, over the number of positions
    :param real: bool, which positions count, of the leading dimensions; None for all
    :raises ValueError: for another shape
    """
    if output.shape != target.shape:
        raise ValueError(f"a block gives {tuple(output.shape)}, the original {tuple(target.shape)}")
    dtype = torch.promote_types(output.dtype, torch.float32)
    output, target = output.to(dtype), target.to(dtype)
    if real is not None:
        output, target = output[real], target[real]
    if kind == "cosine":
        apart = 1.0 - F.cosine_similarity(output, target, dim=-1)
        return apart.sum(), apart.new_tensor(float(apart.numel()))
    squares = (output - target).square().sum()
    whole = target.square().sum() if kind == "nmse" else squares.new_tensor(float(target.numel()))
    return squares, whole


def loss_of(error: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss that two sums stand for; 0 where there is nothing to be told apart."""
    over, under = error
    return over / under.clamp_min(torch.finfo(under.dtype).tiny)


def fitting_mask(
    shape: Sequence[int], masks: Mapping[str, Tensor], name: str | None
) -> Tensor | None:
    """Return a mask of positions as an output has them.

    :param shape: of the output, ``[batch, positions, ...]`` or ``[positions, batch, ...]``
    :param masks: bool, ``[batch, positions]``
    :param name: of the mask that is meant, None for none
    """
    if name is None:
        return None
    mask = masks[name]
    if tuple(shape[:2]) == tuple(mask.shape):
        return mask
    return mask.T if tuple(shape[:2]) == tuple(mask.T.shape) else None


def masks_fitting(shape: Sequence[int], masks: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the masks whose positions an output may have."""
    if len(shape) < 3:
        return []
    return [name for name in masks if fitting_mask(shape, masks, name) is not None]
