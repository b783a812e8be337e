"""What an optimizer remembers of weights that were pruned or come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from sparseml.pytorch.utils.optimizers import states_of
from sparseml.pytorch.utils.tensors.sharded import local_part

_MOMENTS = ("momentum_buffer", "exp_avg", "exp_avg_sq")


def zero_momentum(optimizer: Any) -> None:
    """Zero every ``momentum_buffer`` of an optimizer."""
    for state in states_of(optimizer):
        for values in state.values():
            momentum = values.get("momentum_buffer")
            if isinstance(momentum, Tensor):
                momentum.zero_()


def mask_moments(optimizer: Any, params: Iterable[Parameter]) -> None:
    """Zero first and second moments of weights that are exactly zero."""
    for param in params:
        zero = local_part(param) == 0
        remembered = [state.get(param, {}) for state in states_of(optimizer)]
        for moment in (values.get(name) for values in remembered for name in _MOMENTS):
            if isinstance(moment, Tensor) and moment.shape == param.shape:
                local_part(moment).masked_fill_(zero.to(moment.device), 0)
