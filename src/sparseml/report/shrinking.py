"""What a pruned model becomes when what is zero is removed from it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.shrink import Shrinkage, shrink
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import prunable_params


def shrunk_copy(model: nn.Module, inputs: Any) -> tuple[nn.Module, Shrinkage] | None:
    """Return a smaller copy of ``model`` that computes the same, and how much smaller it is.

    :param inputs: a batch: tensor, or tuple, list or dict of tensors
    :return: None where no neurons, heads or channels are zero as a whole, or none can be removed
    """
    if not any(_has_zero_slices(found.param.detach()) for found in prunable_params(model)):
        return None
    smaller = copy.deepcopy(unwrap_module(model, root=True))
    done = shrink(smaller, inputs)
    return None if done.parameters_after == done.parameters_before else (smaller, done)


def _has_zero_slices(weight: Tensor) -> bool:
    """Whether a whole row or column of a matrix is zero, or a channel of a kernel."""
    zero = weight == 0
    sides = [zero.movedim(dim, 0).flatten(1) for dim in range(min(weight.ndim, 2))]
    return weight.ndim > 1 and any(bool(torch.all(side, dim=1).any()) for side in sides)
