"""What an optimizer remembers of weights that were pruned or come back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adagrad

from sparseml.pytorch.utils.optimizers import states_of, stepping_optimizers
from sparseml.pytorch.utils.tensors.sharded import local_part

_MOMENTS = ("momentum_buffer", "exp_avg", "exp_avg_sq")


def zero_momentum(optimizer: Any) -> None:
    """Zero every ``momentum_buffer`` of an optimizer."""
    for state in states_of(optimizer):
        for values in state.values():
            momentum = values.get("momentum_buffer")
            if isinstance(momentum, Tensor):
                momentum.zero_()


def forget(optimizer: Any, params: Iterable[Parameter] | None = None) -> None:
    """Make an optimizer know no more of parameters than one that is new, its step counts included.

    :param params: None for all
    """
    wanted = None if params is None else {id(param) for param in params}
    for state in states_of(optimizer):
        for param in [one for one in state if wanted is None or id(one) in wanted]:
            state.pop(param)
    # the only one of torch's that fills its state when it is made, not at its first step
    for adagrad in (one for one in stepping_optimizers(optimizer) if isinstance(one, Adagrad)):
        _fill_anew(adagrad)


def mask_moments(optimizer: Any, params: Iterable[Parameter]) -> None:
    """Zero first and second moments of weights that are exactly zero."""
    for param in params:
        zero = local_part(param) == 0
        remembered = [state.get(param, {}) for state in states_of(optimizer)]
        for moment in (values.get(name) for values in remembered for name in _MOMENTS):
            if isinstance(moment, Tensor) and moment.shape == param.shape:
                local_part(moment).masked_fill_(zero.to(moment.device), 0)


def _fill_anew(adagrad: Adagrad) -> None:
    fresh = Adagrad([{**group, "params": group["params"]} for group in adagrad.param_groups])
    for param in (one for group in adagrad.param_groups for one in group["params"]):
        if param not in adagrad.state:
            adagrad.state[param] = fresh.state[param]
