"""An optimizer that drives the modifiers of a recipe, for loops that insist on an optimizer."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.optim.step_wrapper import WrappedOptimizer
from sparseml.pytorch.sparsification.modifier import Loggers
from sparseml.pytorch.utils.optimizers import get_optim_learning_rate, set_optim_learning_rate


class ScheduledOptimizer(WrappedOptimizer):
    """What ``manager.modify`` returns for an optimizer, under the name that SparseML 1.x gave it.

    Initialises the manager at epoch 0 unless it is initialised.

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
        kwargs = {"loggers": loggers, **(initialize_kwargs or {})}
        modified = manager.modify(module, optimizer, steps_per_epoch, epoch=0.0, **kwargs)
        self.__setstate__(modified.__getstate__())

    @property
    def _wrapper(self) -> ScheduledOptimizer:
        # a stand-in of its own in SparseML 1.x
        return self

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first parameter group; setting it sets all groups."""
        return get_optim_learning_rate(self._wrapped)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        set_optim_learning_rate(self._wrapped, value)

    @property
    def manager(self) -> ScheduledModifierManager:
        """The manager driven by :meth:`step`."""
        return self.wrapped_manager

    def manager_state_dict(self) -> dict[str, Any]:
        """Return the manager's ``state_dict()``."""
        return self.manager.state_dict()

    def load_manager_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the manager's ``state_dict()``."""
        self.manager.load_state_dict(state_dict)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the modifiers, then step the inner optimizer."""
        return super().step(closure)

    def adjust_current_step(self, epoch: int, step: int) -> None:
        """Warn, and do nothing else: the step count is kept by the wrapper and by its state."""
        warnings.warn(
            "ScheduledOptimizer.adjust_current_step has no effect; load the manager's state, or "
            "pass the epoch to manager.modify, to go on from a later step",
            UserWarning,
            stacklevel=2,
        )
