"""Choosing exactly k entries of a tensor by their scores.

Everything that prunes ends here, so the rules for ties and bad numbers live in one place: the
lowest scores go; among equal scores the first (in row-major order) are kept; a score that is not a
number is an error.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["kth_lowest", "lowest_mask", "prune_count", "require_numbers", "require_sparsity"]


def require_sparsity(value: float, name: str = "sparsity") -> None:
    """Check that ``value`` is a fraction.

    :raises ValueError: naming ``name``, when ``value`` is outside [0, 1] or not a number
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is a fraction between 0 and 1, found {value!r}")


def require_numbers(scores: Tensor, name: str = "scores") -> None:
    """Check that no entry is NaN; infinities are fine, they rank first or last.

    :raises ValueError: naming ``name`` and how many entries are NaN
    """
    if not scores.is_floating_point():
        return
    bad = int(scores.isnan().sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {scores.numel()} values are NaN, so they have no order")


def prune_count(size: int, sparsity: float) -> int:
    """How many of ``size`` entries are pruned at ``sparsity``: the nearest integer, .5 to even.

    :raises ValueError: for a sparsity outside [0, 1]
    """
    require_sparsity(sparsity)
    return round(size * sparsity)


def kth_lowest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest value (k from 1) of a tensor of any shape, as a 0-d tensor.

    :raises ValueError: for k outside 1 ... numel
    """
    if not 1 <= k <= values.numel():
        raise ValueError(f"k must be between 1 and {values.numel()}, found {k}")
    flat = values.detach().reshape(-1)
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        # introselect: several times faster than kthvalue, which carries the indices along
        return torch.from_numpy(np.partition(flat.numpy(), k - 1)[k - 1 : k])[0]
    return flat.kthvalue(k).values


def lowest_mask(scores: Tensor, count: int) -> Tensor:
    """Prune the ``count`` entries with the lowest scores.

    Among equal scores the first entries in row-major order are kept, so the result depends on
    nothing but the scores, and the count is exact whatever ties there are.

    :param scores: any shape, any floating or integer dtype
    :param count: how many entries to prune, 0 to numel
    :return: bool, shape and device of ``scores``; True = keep, exactly ``count`` are False
    :raises ValueError: for NaN scores or a count out of range
    """
    if not 0 <= count <= scores.numel():
        raise ValueError(f"cannot prune {count} of {scores.numel()} entries")
    require_numbers(scores)
    if count in (0, scores.numel()):
        return torch.full_like(scores, count == 0, dtype=torch.bool)
    flat = scores.detach().reshape(-1)
    threshold = kth_lowest(flat, count)
    keep = flat > threshold
    ties_to_keep = scores.numel() - count - int(keep.sum())
    if ties_to_keep:
        keep[(flat == threshold).nonzero()[:ties_to_keep, 0]] = True
    return keep.reshape(scores.shape)
