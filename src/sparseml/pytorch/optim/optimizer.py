"""An optimizer that drives the modifiers of a recipe, for loops that insist on an optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.sparsification.modifier import Loggers
from sparseml.pytorch.utils.optimizers import get_optim_learning_rate, set_optim_learning_rate

__all__ = ["ScheduledOptimizer"]

_OWN_ATTRIBUTES = ("_wrapper", "learning_rate", "manager", "step")


class ScheduledOptimizer(Optimizer):
    """An optimizer whose step drives a manager's modifiers.

    It is what ``manager.modify`` returns, but an instance of :class:`torch.optim.Optimizer`, so
    that PyTorch's learning rate schedulers accept it. Everything but the step is the inner
    optimizer's. Initialises the manager at epoch 0 unless it is initialised.

    :param optimizer: the inner optimizer
    :param steps_per_epoch: optimizer steps that make an epoch
    :param loggers: for the manager
    :param initialize_kwargs: for the manager's ``initialize``
    :raises ValueError: if ``steps_per_epoch`` is not positive
    """

    def __init__(
        self,
        optimizer: Optimizer,
        module: Module,
        manager: ScheduledModifierManager,
        steps_per_epoch: int,
        loggers: Loggers = None,
        initialize_kwargs: dict[str, Any] | None = None,
    ) -> None:
        # Optimizer.__init__ is left out: groups and state are those of the inner optimizer.
        kwargs = initialize_kwargs or {}
        self._wrapper = manager.modify(
            module, optimizer, steps_per_epoch, epoch=0.0, loggers=loggers, **kwargs
        )

    def __getattr__(self, name: str) -> Any:
        if name in _OWN_ATTRIBUTES or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__} has no attribute '{name}'")
        return getattr(self._wrapper, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN_ATTRIBUTES:
            super().__setattr__(name, value)
        else:
            setattr(self._wrapper.wrapped, name, value)

    def __delattr__(self, name: str) -> None:
        if name in _OWN_ATTRIBUTES:
            super().__delattr__(name)
        else:
            delattr(self._wrapper.wrapped, name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return repr(self._wrapper.wrapped)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first parameter group; setting it sets all groups."""
        return get_optim_learning_rate(self._wrapper.wrapped)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        set_optim_learning_rate(self._wrapper.wrapped, value)

    @property
    def manager(self) -> ScheduledModifierManager:
        """The manager driven by :meth:`step`."""
        return self._wrapper.wrapped_manager

    def manager_state_dict(self) -> dict[str, Any]:
        """Return the manager's ``state_dict()``."""
        return self.manager.state_dict()

    def load_manager_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the manager's ``state_dict()``."""
        self.manager.load_state_dict(state_dict)

    def state_dict(self) -> dict[str, Any]:
        """Return the inner optimizer's state."""
        return self._wrapper.wrapped.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the inner optimizer's state."""
        self._wrapper.wrapped.load_state_dict(state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the inner optimizer's parameters."""
        self._wrapper.wrapped.zero_grad(set_to_none=set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the inner optimizer."""
        self._wrapper.wrapped.add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the modifiers, then step the inner optimizer."""
        return self._wrapper.step(closure)

    def loss_update(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate, after every modifier has had its say."""
        return self._wrapper.loss_update(loss)

    def adjust_current_step(self, epoch: int, step: int) -> None:
        """Warn, and do nothing else: the step count is kept by the wrapper and by its state."""
        warnings.warn(
            "ScheduledOptimizer.adjust_current_step has no effect; load the manager's state, or "
            "pass the epoch to manager.modify, to go on from a later step",
            UserWarning,
            stacklevel=2,
        )
