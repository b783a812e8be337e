"""Where a run stands, and the calls around one optimizer step, for any training loop to make."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Module

from sparseml.optim.schedule import epoch_of_step

__all__ = ["Driven", "Position", "StepDriver"]


class Position(NamedTuple):
    """Where a run stands; immutable.

    :param steps: optimizer steps taken so far
    :param epoch: the epoch that the next step belongs to, progress included
    :param steps_per_epoch: optimizer steps that make an epoch
    """

    steps: int
    epoch: float
    steps_per_epoch: int

    @classmethod
    def at(cls, epoch: float, steps_per_epoch: int) -> Position:
        """Return the position before the step that is taken at ``epoch``.

        :raises ValueError: for an epoch that is not finite, or ``steps_per_epoch <= 0``
        """
        if steps_per_epoch <= 0:
            raise ValueError(f"steps_per_epoch must be greater than 0, got {steps_per_epoch}")
        if not math.isfinite(epoch):
            raise ValueError(f"training must start at a finite epoch, got {epoch}")
        return cls(round(epoch * steps_per_epoch), epoch, steps_per_epoch)


@runtime_checkable
class Driven(Protocol):
    """What a driver needs of a manager; for each see :class:`ScheduledModifierManager`."""

    _enabled: bool
    position: Any

    def _require_initialized(self, caller: str) -> None: ...
    def resolve_steps(self, steps_per_epoch: int) -> None: ...
    def attach_driver(self, driver: Any) -> Position: ...
    def update(self, module: Module, *step: Any) -> None: ...
    def optimizer_pre_step(self, module: Module, *step: Any) -> None: ...
    def optimizer_post_step(self, module: Module, *step: Any) -> None: ...
    def loss_update(self, loss: Tensor, module: Module, *step: Any, **kwargs: Any) -> Tensor: ...


class StepDriver:
    """The calls that carry a manager's modifiers through a loop that steps its own optimizer.

    There are two, one on either side of each optimizer step; nothing is wrapped. It counts
    optimizer steps, and from them the epoch: accumulating gradients over several batches, or a step
    that a gradient scaler leaves out, does not move a schedule. While the manager is disabled, the
    two calls do nothing.

    .. code-block:: python

        manager.initialize(model)
        driver = StepDriver(model, optimizer, manager, steps_per_epoch=len(loader))
        for inputs, labels in loader:
            loss = driver.loss_update(loss_function(model(inputs), labels))
            optimizer.zero_grad()
            loss.backward()
            driver.before_step()
            optimizer.step()
            driver.after_step()

    :param module: the module handed to the modifiers
    :param optimizer: the optimizer handed to the modifiers
    :param manager: a ``ScheduledModifierManager``; it must be initialised before the first step
    :param steps_per_epoch: optimizer steps (not batches, when gradients are accumulated) that make
        an epoch
    :param epoch: the epoch (progress included) to start counting at; by default where a state that
        the manager has loaded has stopped, or else the one that the manager was initialised with
    :raises ValueError: for a foreign manager, ``steps_per_epoch <= 0``, an epoch that is not
        finite, or a schedule in steps that does not hold with ``steps_per_epoch``
    """

    def __init__(
        self,
        module: Module,
        optimizer: Any,
        manager: Driven,
        steps_per_epoch: int,
        epoch: float | None = None,
    ) -> None:
        if not isinstance(manager, Driven):
            raise ValueError(
                f"manager must be a ScheduledModifierManager, got {type(manager).__name__}"
            )
        self.module = module
        self.optimizer = optimizer
        self.manager = manager
        self._position = Position.at(0.0 if epoch is None else epoch, steps_per_epoch)
        manager.resolve_steps(steps_per_epoch)
        start = manager.attach_driver(self)
        if epoch is None:
            self.resume(start)

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return self._position

    def before_step(self) -> None:
        """Update the modifiers that are due; to be called with the final gradients.

        :raises RuntimeError: unless the manager is initialised
        """
        manager, (_, epoch, steps_per_epoch) = self.manager, self._position
        if manager._enabled:  # not by the property, as this is asked at every step
            manager.update(self.module, self.optimizer, epoch, steps_per_epoch)
            manager.optimizer_pre_step(self.module, self.optimizer, epoch, steps_per_epoch)

    def after_step(self, skipped: bool = False) -> None:
        """Bring the masks back into force, and count the step.

        :param skipped: the optimizer's step did not happen after all, so that it does not count;
            the modifiers only undo what they have prepared for it
        :raises RuntimeError: unless the manager is initialised
        """
        manager, (steps, epoch, steps_per_epoch) = self.manager, self._position
        if not manager._enabled:
            return
        manager.optimizer_post_step(self.module, self.optimizer, epoch, steps_per_epoch)
        if skipped:
            manager.position = self._position
        else:
            epoch = epoch_of_step(steps + 1, steps_per_epoch)
            self._position = Position(steps + 1, epoch, steps_per_epoch)

    def loss_update(self, loss: Tensor, **kwargs: Any) -> Tensor:
        """Return the loss to differentiate, after every enabled modifier has had its say.

        :param kwargs: what modifiers need beside the loss; for distillation ``student_inputs`` and
            ``student_outputs``
        :raises RuntimeError: unless the manager is initialised and enabled
        """
        _, epoch, steps_per_epoch = self._position
        return self.manager.loss_update(
            loss, self.module, self.optimizer, epoch, steps_per_epoch, **kwargs
        )

    def resume(self, position: Position) -> None:
        """Go on from a position; with other steps per epoch, from as far in epochs.

        Loading the manager's state does so by itself.
        """
        own = self._position.steps_per_epoch
        if position.steps_per_epoch != own:
            # with another batch size: as far in epochs, which is what schedules go by
            position = Position(round(position.epoch * own), position.epoch, own)
        self._position = position
