"""A stand-in for an optimizer (or gradient scaler) whose step also drives the modifiers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn import Module

from sparseml.optim.manager import BaseManager
from sparseml.optim.steps import epoch_of_step
from sparseml.pytorch.optim.grad_scaling import (
    fused_step_overflows,
    true_gradients,
    unscale_and_check,
)
from sparseml.pytorch.sparsification.modifier import Modifier

if TYPE_CHECKING:
    from sparseml.pytorch.optim.manager import ScheduledModifierManager

__all__ = ["RecipeManagerStepWrapper"]


class RecipeManagerStepWrapper:
    """Wraps what a training loop steps, so that each step also runs a manager's modifiers.

    Everything else is read from and written to the wrapped object. It counts optimizer steps, and
    from them the epoch: accumulating gradients over several batches, or a step that a gradient
    scaler leaves out because of an overflow, does not move a schedule.

    With a closure, the modifiers run inside the step, once the closure has computed the gradients
    for the first time. An optimizer that reads its learning rate before it calls the closure (as
    LBFGS does) hence sees a scheduled one a step late.

    :param wrap: the optimizer, or a gradient scaler whose ``step`` is given the optimizer
    :param optimizer: the optimizer handed to the modifiers
    :param epoch: the epoch (progress included) to start counting at
    :param steps_per_epoch: optimizer steps that make an epoch
    :raises ValueError: for a foreign manager, a ``wrap`` without ``step``, ``steps_per_epoch <= 0``
    """

    _wrapped: Any

    def __init__(
        self,
        wrap: Any,
        optimizer: Any,
        module: Module,
        manager: ScheduledModifierManager,
        epoch: float,
        steps_per_epoch: int,
    ) -> None:
        if not (isinstance(manager, BaseManager) and isinstance(manager, Modifier)):
            raise ValueError(
                f"manager must be a ScheduledModifierManager, got {type(manager).__name__}"
            )
        if not callable(getattr(wrap, "step", None)):
            raise ValueError(
                f"wrap must have a method 'step', as an optimizer or a gradient scaler has; "
                f"{type(wrap).__name__} has none"
            )
        if steps_per_epoch <= 0:
            raise ValueError(f"steps_per_epoch must be greater than 0, got {steps_per_epoch}")
        self._wrapped = wrap
        self._wrapped_manager = manager
        self._wrapped_optimizer = optimizer
        self._wrapped_module = module
        self._wrapped_steps_per_epoch = steps_per_epoch
        self._wrapped_epoch = epoch
        self._wrapped_steps = round(epoch * steps_per_epoch)

    def __getattr__(self, name: str) -> Any:
        # Reached for names that neither this object nor its class has. Copying and pickling ask
        # for special methods, and ask before there is a wrapped object.
        if name.startswith("_wrapped") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        return getattr(self._wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_wrapped"):
            super().__setattr__(name, value)
        elif isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"'{name}' of {type(self).__name__} is read-only")
        else:
            setattr(self._wrapped, name, value)

    def __delattr__(self, name: str) -> None:
        if name.startswith("_wrapped"):
            super().__delattr__(name)
        else:
            delattr(self._wrapped, name)

    @property
    def wrapped(self) -> Any:
        """What is stepped."""
        return self._wrapped

    @property
    def wrapped_manager(self) -> ScheduledModifierManager:
        """The manager driven by :meth:`step`."""
        return self._wrapped_manager

    @property
    def wrapped_optimizer(self) -> Any:
        """The optimizer handed to the modifiers."""
        return self._wrapped_optimizer

    @property
    def wrapped_module(self) -> Module:
        """The module handed to the modifiers."""
        return self._wrapped_module

    @property
    def wrapped_steps_per_epoch(self) -> int:
        """Optimizer steps that make an epoch."""
        return self._wrapped_steps_per_epoch

    @property
    def wrapped_epoch(self) -> float:
        """The epoch that the next step belongs to, progress included."""
        return self._wrapped_epoch

    @property
    def wrapped_steps(self) -> int:
        """Optimizer steps taken so far."""
        return self._wrapped_steps

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Update the modifiers, then step the wrapped object with the arguments given.

        :return: what the wrapped ``step`` returns
        :raises RuntimeError: after the manager was finalised
        """
        optimizer = self._stepped_optimizer(args, kwargs)
        if not self._wrapped_manager.enabled or not self._is_own(optimizer):
            return self._wrapped.step(*args, **kwargs)
        self._wrapped_manager._require_initialized("step")
        if not self._will_step(optimizer):
            return self._wrapped.step(*args, **kwargs)
        before_step = _once(self._before_step)
        args, kwargs, deferred = self._defer_to_closure(before_step, args, kwargs)
        with nullcontext() if deferred else true_gradients(self._wrapped):
            if not deferred:
                before_step()
            result = self._wrapped.step(*args, **kwargs)
        before_step()  # for an optimizer that was given a closure and did not call it
        self._after_step()
        return result

    def emulated_step(self) -> None:
        """All that :meth:`step` does but for stepping the wrapped object."""
        if self._wrapped_manager.enabled:
            self._before_step()
            self._after_step()

    def loss_update(self, loss: Tensor) -> Tensor:
        """The loss to differentiate, after every modifier has had its say."""
        return self._wrapped_manager.loss_update(loss, *self._wrapped_arguments())

    def _wrapped_resume(self, position: Mapping[str, Any]) -> None:
        """Go on from the position (:func:`~sparseml.pytorch.optim.progress.position`) of a run."""
        if not position:
            return
        self._wrapped_epoch, self._wrapped_steps = position["epoch"], position["steps"]
        if position["steps_per_epoch"] != self._wrapped_steps_per_epoch:
            # with another batch size: as far in epochs, which is what schedules go by
            self._wrapped_steps = round(self._wrapped_epoch * self._wrapped_steps_per_epoch)

    def _wrapped_arguments(self) -> tuple[Module, Any, float, int]:
        return (
            self._wrapped_module,
            self._wrapped_optimizer,
            self._wrapped_epoch,
            self._wrapped_steps_per_epoch,
        )

    def _before_step(self) -> None:
        self._wrapped_manager.update(*self._wrapped_arguments())
        self._wrapped_manager.optimizer_pre_step(*self._wrapped_arguments())

    def _after_step(self) -> None:
        self._wrapped_manager.optimizer_post_step(*self._wrapped_arguments())
        self._wrapped_steps += 1
        self._wrapped_epoch = epoch_of_step(self._wrapped_steps, self._wrapped_steps_per_epoch)

    def _stepped_optimizer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not isinstance(self._wrapped, GradScaler):
            return self._wrapped
        return args[0] if args else kwargs.get("optimizer")

    def _is_own(self, stepped: Any) -> bool:
        # One scaler may step several optimizers. Libraries that put an optimizer into an object of
        # their own hand on its parameter groups.
        if stepped is self._wrapped or stepped is self._wrapped_optimizer:
            return True
        groups = getattr(self._wrapped_optimizer, "param_groups", None)
        return groups is not None and getattr(stepped, "param_groups", None) is groups

    def _will_step(self, optimizer: Any) -> bool:
        if not isinstance(self._wrapped, GradScaler):
            return not fused_step_overflows(self._wrapped)
        return not self._wrapped.is_enabled() or unscale_and_check(self._wrapped, optimizer)

    def _defer_to_closure(
        self, before_step: Callable[[], None], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        """The arguments with their closure, if any, followed by ``before_step``."""
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": _then(kwargs["closure"], before_step)}, True
        if args and callable(args[0]) and not isinstance(self._wrapped, GradScaler):
            return (_then(args[0], before_step), *args[1:]), kwargs, True
        return args, kwargs, False


def _once(function: Callable[[], None]) -> Callable[[], None]:
    pending = [function]

    def call() -> None:
        if pending:
            pending.pop()()

    return call


def _then(closure: Callable[..., Any], follow: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(closure)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        result = closure(*args, **kwargs)
        follow()
        return result

    return evaluate
