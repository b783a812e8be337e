"""A stand-in for an optimizer (or gradient scaler) whose step also drives the modifiers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn import Module

from sparseml.pytorch.optim.grad_scaling import (
    fused_step_overflows,
    true_gradients,
    unscale_and_check,
)
from sparseml.pytorch.optim.step_driver import Driven, StepDriver

__all__ = ["RecipeManagerStepWrapper"]


class RecipeManagerStepWrapper:
    """A stand-in for what a training loop steps, so that each step also runs the modifiers.

    Everything else is read from and written to the wrapped object. The modifiers are run by a
    :class:`~sparseml.pytorch.optim.step_driver.StepDriver`, which also counts the steps; here are
    only forwarding, closures and gradient scaling.

    With a closure, the modifiers run inside the step, once the closure has computed the gradients
    for the first time. An optimizer that reads its learning rate before it calls the closure (as
    LBFGS does) hence sees a scheduled one a step late.

    :param wrap: the optimizer, or a gradient scaler whose ``step`` is given the optimizer
    :param optimizer: the optimizer handed to the modifiers
    :param epoch: the epoch (progress included) to start counting at; None as for the driver
    :param steps_per_epoch: optimizer steps that make an epoch
    :raises ValueError: for a ``wrap`` without ``step``, and as the driver does
    """

    _wrapped: Any

    def __init__(
        self,
        wrap: Any,
        optimizer: Any,
        module: Module,
        manager: Driven,
        epoch: float | None,
        steps_per_epoch: int,
    ) -> None:
        if not callable(getattr(wrap, "step", None)):
            raise ValueError(
                f"wrap must have a method 'step', as an optimizer or a gradient scaler has; "
                f"{type(wrap).__name__} has none"
            )
        self._wrapped = wrap
        self._wrapped_driver = StepDriver(module, optimizer, manager, steps_per_epoch, epoch)

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
    def wrapped_driver(self) -> StepDriver:
        """What runs the modifiers and counts the steps."""
        return self._wrapped_driver

    @property
    def wrapped_manager(self) -> Any:
        """The manager driven by :meth:`step`."""
        return self._wrapped_driver.manager

    @property
    def wrapped_optimizer(self) -> Any:
        """The optimizer handed to the modifiers."""
        return self._wrapped_driver.optimizer

    @property
    def wrapped_module(self) -> Module:
        """The module handed to the modifiers."""
        return self._wrapped_driver.module

    @property
    def wrapped_steps_per_epoch(self) -> int:
        """Optimizer steps that make an epoch."""
        return self._wrapped_driver.position.steps_per_epoch

    @property
    def wrapped_epoch(self) -> float:
        """The epoch that the next step belongs to, progress included."""
        return self._wrapped_driver.position.epoch

    @property
    def wrapped_steps(self) -> int:
        """Optimizer steps taken so far."""
        return self._wrapped_driver.position.steps

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Update the modifiers, then step the wrapped object with the arguments given.

        :return: what the wrapped ``step`` returns
        :raises RuntimeError: after the manager was finalised
        """
        wrapped, driver = self._wrapped, self._wrapped_driver
        scaled = getattr(wrapped, "found_inf", None) is not None or isinstance(wrapped, GradScaler)
        if args or kwargs or scaled or getattr(wrapped, "grad_scale", None) is not None:
            return self._special_step(args, kwargs)
        driver.before_step()
        result = wrapped.step()
        driver.after_step()
        return result

    def emulated_step(self) -> None:
        """Do all that :meth:`step` does but for stepping the wrapped object."""
        self._wrapped_driver.before_step()
        self._wrapped_driver.after_step()

    def loss_update(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate, after every modifier has had its say."""
        return self._wrapped_driver.loss_update(loss)

    def _special_step(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Step with a closure, a gradient scaler, or what else is given."""
        driver, optimizer = self._wrapped_driver, self._stepped_optimizer(args, kwargs)
        if not driver.manager._enabled or not self._is_own(optimizer):
            return self._wrapped.step(*args, **kwargs)
        driver.manager._require_initialized("step")
        if not self._will_step(optimizer):
            return self._wrapped.step(*args, **kwargs)
        before_step = _once(driver.before_step)
        args, kwargs, deferred = self._defer_to_closure(before_step, args, kwargs)
        with nullcontext() if deferred else true_gradients(self._wrapped):
            if not deferred:
                before_step()
            result = self._wrapped.step(*args, **kwargs)
        before_step()  # for an optimizer that was given a closure and did not call it
        driver.after_step()
        return result

    def _stepped_optimizer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not isinstance(self._wrapped, GradScaler):
            return self._wrapped
        return args[0] if args else kwargs.get("optimizer")

    def _is_own(self, stepped: Any) -> bool:
        # One scaler may step several optimizers. Libraries that put an optimizer into an object of
        # their own hand on its parameter groups.
        optimizer = self._wrapped_driver.optimizer
        if stepped is self._wrapped or stepped is optimizer:
            return True
        groups = getattr(optimizer, "param_groups", None)
        return groups is not None and getattr(stepped, "param_groups", None) is groups

    def _will_step(self, optimizer: Any) -> bool:
        if not isinstance(self._wrapped, GradScaler):
            return not fused_step_overflows(self._wrapped)
        return not self._wrapped.is_enabled() or unscale_and_check(self._wrapped, optimizer)

    def _defer_to_closure(
        self, before_step: Callable[[], None], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any], bool]:
        """Return the arguments with their closure, if any, followed by ``before_step``."""
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
