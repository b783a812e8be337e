"""What a step needs to know about automatic mixed precision.

A gradient scaler multiplies the loss so that small half-precision gradients do not vanish, divides
the gradients again before the step, and leaves the step out when one of them is not finite.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState

__all__ = ["fused_step_overflows", "true_gradients", "unscale_and_check"]


def unscale_and_check(scaler: GradScaler, optimizer: Any) -> bool:
    """Bring the optimizer's gradients to their true scale, unless that is done already.

    :return: whether all of them are finite, that is, whether the scaler will let the step happen
    """
    # Which optimizers were unscaled since the last scaler.update() is known nowhere else.
    state = scaler._per_optimizer_states[id(optimizer)]
    if state["stage"] is OptState.READY:
        scaler.unscale_(optimizer)
    return not any(bool(found) for found in state["found_inf_per_device"].values())


def fused_step_overflows(optimizer: Any) -> bool:
    """Return whether a fused optimizer, called by a scaler, will leave its parameters as they are.

    A scaler that steps a fused optimizer neither unscales nor skips; it hands ``grad_scale`` and
    ``found_inf`` to the optimizer, whose kernel acts on them.
    """
    found_inf = getattr(optimizer, "found_inf", None)
    return isinstance(found_inf, Tensor) and bool(found_inf)


@contextmanager
def true_gradients(optimizer: Any) -> Iterator[None]:
    """Divide gradients by the ``grad_scale`` of a fused optimizer here instead of in its kernel."""
    scale = getattr(optimizer, "grad_scale", None)
    if not isinstance(scale, Tensor):
        yield
        return
    with torch.no_grad():
        for group in optimizer.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    param.grad.div_(scale.to(param.grad.device))
    optimizer.grad_scale = None
    try:
        yield
    finally:
        optimizer.grad_scale = scale
