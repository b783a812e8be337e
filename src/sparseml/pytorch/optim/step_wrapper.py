"""A stand-in for an optimizer (or gradient scaler) whose step also drives the modifiers."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.optim.step_driver import Driven, StepDriver
from sparseml.pytorch.utils.optimizers import stepping_optimizers

_HANDED_ON = ("grad_scale", "found_inf")
"""What a gradient scaler tells an optimizer by attributes that it did not have before."""


def _of_driver(path: str, doc: str) -> property:
    return property(attrgetter(f"_wrapped_driver{path}"), doc=doc)


class RecipeManagerStepWrapper:
    """A stand-in for what a training loop steps, so that each step also runs the modifiers.

    Attributes that the wrapped object has are read from it and written to it; others stay here. If
    it is a torch optimizer, so is this: a :class:`WrappedOptimizer` is made. The modifiers are run
    by a :class:`~sparseml.pytorch.optim.step_driver.StepDriver`, which also counts the steps that
    happen.

    With a closure, the modifiers run inside the step, once the closure has computed the gradients
    for the first time. An optimizer that reads its learning rate before it calls the closure (as
    LBFGS does) hence sees a scheduled one a step late.

    :param wrap: the optimizer, or a gradient scaler whose ``step`` is given the optimizer
    :param optimizer: the optimizer handed to the modifiers
    :param epoch: the epoch (progress included) to start counting at; None as for the driver
    :param steps_per_epoch: optimizer steps that make an epoch
    :raises ValueError: for a ``wrap`` without ``step``, and as the driver does
    """

    def __new__(cls, wrap: Any = None, *args: Any, **kwargs: Any) -> RecipeManagerStepWrapper:
        plain = cls is RecipeManagerStepWrapper and isinstance(wrap, Optimizer)
        return super().__new__(WrappedOptimizer if plain else cls)

    def __init__(
        self,
        wrap: Any,
        optimizer: Any,
        module: Module,
        manager: Driven,
        epoch: float | None,
        steps_per_epoch: int,
    ) -> None:
        if not hasattr(wrap, "step"):
            raise ValueError(
                "wrap must have a method 'step', as an optimizer or a gradient scaler has; "
                f"{type(wrap).__name__} has none"
            )
        self._wrapped = wrap
        self._wrapped_driver = StepDriver(module, optimizer, manager, steps_per_epoch, epoch)
        if not isinstance(wrap, GradScaler):  # which is given the optimizer to step
            self._wrapped_driver._stepping = stepping_optimizers(wrap, optimizer)

    def __getattr__(self, name: str) -> Any:
        # Reached for names that neither this object nor its class has. Copying and pickling ask
        # for special methods, and ask before there is a wrapped object.
        if name.startswith("_wrapped") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        return getattr(self._wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        of_class = getattr(type(self), name, None)
        if isinstance(of_class, property) and of_class.fset is None:
            raise AttributeError(f"'{name}' of {type(self).__name__} is read-only")
        own = name.startswith("_wrapped") or name in self.__dict__ or of_class is not None
        if name in _HANDED_ON or (not own and hasattr(self._wrapped, name)):
            setattr(self._wrapped, name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name.startswith("_wrapped") or name in self.__dict__:
            super().__delattr__(name)
        else:
            delattr(self._wrapped, name)

    def __getstate__(self) -> dict[str, Any]:
        # As with torch's optimizers: what others have attached to this one is not copied.
        return {name: value for name, value in vars(self).items() if name.startswith("_wrapped")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    wrapped = property(attrgetter("_wrapped"), doc="What is stepped.")
    wrapped_driver = _of_driver("", "What runs the modifiers and counts the steps.")
    wrapped_manager = _of_driver(".manager", "The manager driven by :meth:`step`.")
    wrapped_optimizer = _of_driver(".optimizer", "The optimizer handed to the modifiers.")
    wrapped_module = _of_driver(".module", "The module handed to the modifiers.")
    wrapped_steps = _of_driver(".position.steps", "Optimizer steps taken so far.")
    wrapped_steps_per_epoch = _of_driver(
        ".position.steps_per_epoch", "Optimizer steps that make an epoch."
    )
    wrapped_epoch = _of_driver(
        ".position.epoch", "The epoch that the next step belongs to, progress included."
    )

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Step the wrapped object with the arguments given; before that, update the modifiers.

        What the optimizer leaves out is no step: the modifiers do not act, and it does not count.

        :return: what the wrapped ``step`` returns
        :raises RuntimeError: after the manager was finalised
        """
        wrapped, driver = self._wrapped, self._wrapped_driver
        if not driver.manager._enabled:
            return wrapped.step(*args, **kwargs)
        if not driver.manager._initialized:
            driver.manager._require_initialized("step")
        driver._state = "idle"
        # a ``step`` that others have put in the place of torch's own may run no hooks
        told = [o for o in driver._stepping if getattr(o.step, "hooked", None) is True]
        driver._hooks = [optimizer.register_step_pre_hook(driver._begin) for optimizer in told]
        if not driver._hooks:
            given = (wrapped, *args), kwargs
            changed = driver._begin(None, *given) or given
            args, kwargs = changed[0][1:], changed[1]
        try:
            result = wrapped.step(*args, **kwargs)
        finally:
            while driver._hooks:
                driver._hooks.pop().remove()
        if driver._state == "awaits closure":  # which was not called
            driver._begin_in_closure()
        if driver._state == "begun":
            driver.after_step(skipped=False)
        return result

    def emulated_step(self) -> None:
        """Do all that :meth:`step` does but for stepping the wrapped object."""
        self._wrapped_driver.before_step()
        self._wrapped_driver.after_step(skipped=False)

    def loss_update(self, loss: Tensor, **kwargs: Any) -> Tensor:
        """Return the loss to differentiate, after every modifier has had its say.

        :param kwargs: what modifiers need beside the loss, see :meth:`StepDriver.loss_update`
        """
        return self._wrapped_driver.loss_update(loss, **kwargs)


class _OfWrapped:
    """A method of the wrapped optimizer, in place of the one that ``Optimizer`` would give."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return getattr(Optimizer if instance is None else instance._wrapped, self.name)


class WrappedOptimizer(RecipeManagerStepWrapper, Optimizer):
    """A :class:`RecipeManagerStepWrapper` that libraries take as a torch optimizer.

    Parameter groups, state, hooks and methods are those of the wrapped optimizer, but ``step``.
    """

    def __repr__(self) -> str:
        return repr(self._wrapped)


for _name in vars(Optimizer):
    if not _name.startswith("__") and not hasattr(RecipeManagerStepWrapper, _name):
        _method = _OfWrapped()
        _method.__set_name__(WrappedOptimizer, _name)
        setattr(WrappedOptimizer, _name, _method)
