"""What an optimizer remembers of weights that were pruned or come back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from sparseml.pytorch.functional.masks import changed_entries
from sparseml.pytorch.utils.tensors.sharded import local_part

__all__ = ["clear_optimizer_state", "mask_moments", "zero_momentum"]

_MOMENTS = ("momentum_buffer", "exp_avg", "exp_avg_sq")


def clear_optimizer_state(
    optimizer: Any,
    params: Sequence[Parameter],
    old_masks: Sequence[Tensor],
    new_masks: Sequence[Tensor],
) -> bool:
    """Zero momentum, second moments and the like wherever a mask has changed.

    Momentum of a pruned weight would move it until the next masking, and that of a regrown weight
    belongs to its former life.

    :param optimizer: any object with a ``state`` of the usual form, parameter → name → value; every
        tensor in it that has the parameter's shape is cleared
    :return: whether any mask has changed
    """
    state = getattr(optimizer, "state", {})
    any_changed = False
    for param, old, new in zip(params, old_masks, new_masks, strict=True):
        if old is new or old.shape != new.shape:
            continue
        changed = changed_entries(local_part(old), local_part(new))
        if not bool(changed.any()):
            continue
        any_changed = True
        for value in state.get(param, {}).values():
            if isinstance(value, Tensor) and value.shape == param.shape:
                local_part(value).masked_fill_(changed.to(value.device), 0)
    return any_changed


def zero_momentum(optimizer: Any) -> None:
    """Zero every ``momentum_buffer`` of an optimizer."""
    for values in getattr(optimizer, "state", {}).values():
        momentum = values.get("momentum_buffer")
        if isinstance(momentum, Tensor):
            momentum.zero_()


def mask_moments(optimizer: Any, params: Iterable[Parameter]) -> None:
    """Zero first and second moments of weights that are exactly zero."""
    for param in params:
        values = optimizer.state.get(param, {})
        zero = local_part(param) == 0
        for name in _MOMENTS:
            moment = values.get(name)
            if isinstance(moment, Tensor) and moment.shape == param.shape:
                local_part(moment).masked_fill_(zero.to(moment.device), 0)
