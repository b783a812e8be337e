"""What a step needs to know about automatic mixed precision.

A gradient scaler multiplies the loss so that small half-precision gradients do not vanish, divides
the gradients again before the step, and leaves the step out when one of them is not finite.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler, OptState

__all__ = ["take_over_fused_scaling", "unscale_and_check"]


def unscale_and_check(scaler: GradScaler, optimizer: Any) -> bool:
    """Bring the optimizer's gradients to their true scale, unless that is done already.

    :return: whether all of them are finite, that is, whether the scaler will let the step happen
    """
    # Which optimizers were unscaled since the last scaler.update() is known nowhere else.
    state = scaler._per_optimizer_states[id(optimizer)]
    if state["stage"] is OptState.READY:
        scaler.unscale_(optimizer)
    return not any(bool(found) for found in state["found_inf_per_device"].values())


def take_over_fused_scaling(optimizer: Any) -> bool:
    """Do what a fused optimizer otherwise does inside its step, so that others see true gradients.

    A scaler that steps a fused optimizer neither unscales nor skips; it hands ``grad_scale`` and
    ``found_inf`` to the optimizer, whose kernel acts on them.

    :return: whether the step will change the parameters
    """
    found_inf = getattr(optimizer, "found_inf", None)
    if isinstance(found_inf, Tensor) and bool(found_inf):
        return False
    scale = getattr(optimizer, "grad_scale", None)
    if isinstance(scale, Tensor):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        with torch.no_grad():
            for grad in grads:
                if grad is not None:
                    grad.div_(scale.to(grad.device))
        optimizer.grad_scale = None
    return True
