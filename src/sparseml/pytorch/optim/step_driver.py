"""Where a run stands, and the calls around one optimizer step, for any training loop to make."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils.hooks import RemovableHandle

from sparseml.optim.manager import BaseManager
from sparseml.pytorch.optim.real_steps import after_closure, take_gradient_scale
from sparseml.pytorch.utils.agreement import Agreement
from sparseml.pytorch.utils.distributed import is_distributed
from sparseml.pytorch.utils.optimizers import stepping_optimizers


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
        :raises TypeError: for ``steps_per_epoch`` that is no number, such as the loader itself
        """
        try:
            positive = steps_per_epoch > 0
        except TypeError as error:
            found = type(steps_per_epoch).__name__
            told = f"steps_per_epoch must be a number, such as len(loader), found a {found}"
            raise TypeError(told) from error
        if not positive:
            raise ValueError(f"steps_per_epoch must be greater than 0, got {steps_per_epoch}")
        if not math.isfinite(epoch):
            raise ValueError(f"training must start at a finite epoch, got {epoch}")
        return cls(round(epoch * steps_per_epoch), epoch, steps_per_epoch)


@runtime_checkable
class Driven(Protocol):
    """What a driver needs of a manager; for each see :class:`ScheduledModifierManager`.

    ``optimizer_post_step`` sets ``position`` to where the run stands after the step.
    """

    _enabled: bool
    _initialized: bool
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
    that a gradient scaler or a library leaves out, does not move a schedule. Whether there was a
    step is told by the hooks of the innermost torch optimizer. While the manager is disabled, the
    two calls do nothing.

    Where several processes train a model together, recipes and ``steps_per_epoch`` are compared at
    the first step, when all have been through a backward pass: a RuntimeError names what differs
    (a warning does where nothing tells that they train it together). A process that drives no
    manager is not waited for. Seeds may differ: what modifiers draw for all is drawn by the recipe.

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
    :param compared: whether the caller has compared recipes and steps of all processes
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
        *,
        compared: bool = False,
    ) -> None:
        if not isinstance(manager, Driven):
            found = type(manager).__name__
            raise ValueError(f"manager must be a ScheduledModifierManager, got {found}")
        self.module = module
        self.optimizer = optimizer
        self.manager = manager
        self._position = Position.at(0.0 if epoch is None else epoch, steps_per_epoch)
        self._stepping = stepping_optimizers(optimizer)
        self._hooks: list[RemovableHandle] = []  # of the step under way
        self._state = "idle"  # or "awaits closure", "begun", "stepped"
        manager.resolve_steps(steps_per_epoch)
        start = manager.attach_driver(self)
        if epoch is None:
            self.resume(start)
        self._agreement: Agreement | None = None  # until all ranks have come
        if is_distributed() and not compared:
            recipe = str(manager) if isinstance(manager, BaseManager) else None
            steps = float(steps_per_epoch)  # of numpy, maybe
            given = {
                "the recipe": recipe,
                "steps_per_epoch": int(steps) if steps.is_integer() else steps,
            }
            self._agreement = Agreement(given)

    @property
    def position(self) -> Position:
        """Where the run stands."""
        return self._position

    def before_step(self) -> None:
        """Update what is due, by the final gradients; a RuntimeError unless initialised."""
        if not self.manager._enabled:  # not by the property, as this is asked at every step
            return
        while self._hooks:  # of a step that an error has ended
            self._hooks.pop().remove()
        self._state = "idle"
        self._begin(None, (), {})
        told = [o for o in self._stepping if getattr(o.step, "hooked", None) is True]
        self._hooks = [optimizer.register_step_pre_hook(self._note) for optimizer in told]
        if not told:
            self._state = "stepped"

    def after_step(self, skipped: bool | None = None) -> None:
        """Bring the masks back into force, and count the step.

        :param skipped: the optimizer's step did not happen after all, so that it does not count;
            the modifiers only undo what they have prepared for it. By default what the optimizer
            has told by its hooks since :meth:`before_step`; False, for one that has none
        :raises RuntimeError: unless the manager is initialised
        """
        manager, (_, epoch, steps_per_epoch) = self.manager, self._position
        if not manager._enabled:
            return
        if skipped is None:
            skipped = self._state != "stepped"
        self._state = "idle"
        while self._hooks:
            self._hooks.pop().remove()
        manager.optimizer_post_step(self.module, self.optimizer, epoch, steps_per_epoch)
        if skipped:
            manager.position = self._position
        else:
            self._position = manager.position

    def loss_update(self, loss: Tensor, **kwargs: Any) -> Tensor:
        """Return the loss to differentiate, after every enabled modifier has had its say.

        :param kwargs: what modifiers need beside the loss; for distillation ``student_inputs`` and
            ``student_outputs``
        :raises RuntimeError: unless the manager is initialised and enabled
        """
        step = (self.module, self.optimizer, *self._position[1:])
        return self.manager.loss_update(loss, *step, **kwargs)

    def resume(self, position: Position) -> None:
        """Go on from a position, as loading the manager's state does by itself."""
        own = self._position.steps_per_epoch
        if position.steps_per_epoch != own:
            # with another batch size: as far in epochs, which is what schedules go by
            position = Position(round(position.epoch * own), position.epoch, own)
        self._position = position

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_hooks": []}  # a copy is not in the midst of a step

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.manager._initialized:
            self.manager.attach_driver(self)  # the copy drives the copy of the manager

    def _begin(
        self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Run the modifiers, once; as a hook, before the step of the optimizer.

        :return: other arguments for the step, if its closure has to come first
        """
        # A gradient scaler steps a fused optimizer in any case, having told it what it has found.
        if self._state != "idle" or getattr(optimizer, "found_inf", None):
            return None
        if len(args) > 1 or kwargs:
            changed = after_closure(self._begin_in_closure, args, kwargs)
            if changed is not None:
                self._state = "awaits closure"
                return changed
        if not torch.is_grad_enabled():  # modifiers may sample gradients
            with torch.enable_grad():
                return self._begin(optimizer, args[:1], {})
        if self._agreement is not None:
            self._agreement.require(self.module)
            self._agreement = None
        if isinstance(getattr(optimizer, "grad_scale", None), Tensor):
            self._hooks.append(take_gradient_scale(optimizer))
        self._state = "begun"
        manager, (_, epoch, steps_per_epoch) = self.manager, self._position
        manager.update(self.module, self.optimizer, epoch, steps_per_epoch)
        manager.optimizer_pre_step(self.module, self.optimizer, epoch, steps_per_epoch)
        return None

    def _begin_in_closure(self) -> None:
        if self._state == "awaits closure":
            self._state = "idle"
            self._begin(None, (), {})

    def _note(self, optimizer: Any, *_: Any) -> None:
        if not getattr(optimizer, "found_inf", None):
            self._state = "stepped"
