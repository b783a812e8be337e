"""What may stand between a loop's call of ``step`` and the step of a torch optimizer.

Libraries put optimizers into objects of their own, which leave steps out (gradient accumulation,
overflows of half-precision gradients) or take them elsewhere (closures). Only the innermost torch
optimizer knows whether a step happens; it says so by the hooks of its step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle


@torch.no_grad()
def take_gradient_scale(optimizer: Any) -> RemovableHandle:
    """Divide gradients by the ``grad_scale`` of a fused optimizer here instead of in its kernel.

    A scaler that steps a fused optimizer neither unscales nor skips; it hands ``grad_scale`` and
    ``found_inf`` to the optimizer, whose kernel acts on them.

    :return: the handle of the hook that gives ``grad_scale`` back after the step
    """
    scale = optimizer.grad_scale
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param.grad is not None:
                param.grad.div_(scale.to(param.grad.device))
    optimizer.grad_scale = None
    give_back = functools.partial(setattr, optimizer, "grad_scale", scale)
    handle: RemovableHandle = optimizer.register_step_post_hook(lambda *_: give_back())
    return handle


def after_closure(
    follow: Callable[[], None], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the arguments of a step, its closure followed by ``follow``; None without a closure.

    :param args: the positional arguments; the first one is the optimizer
    """
    closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
    if not callable(closure):
        return None

    @functools.wraps(closure)
    def evaluate(*arguments: Any, **named: Any) -> Any:
        result = closure(*arguments, **named)
        follow()
        return result

    if "closure" in kwargs:
        return args, {**kwargs, "closure": evaluate}
    return (args[0], evaluate, *args[2:]), kwargs
