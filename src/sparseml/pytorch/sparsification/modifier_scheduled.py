"""Modifiers that start, end and repeat on a schedule."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.optim.modifier import BaseScheduled, BaseUpdate, ModifierProp
from sparseml.optim.schedule import Reason, Schedule
from sparseml.pytorch.sparsification.modifier_base import Loggers, Modifier
from sparseml.pytorch.utils.logger import LOGGING_LEVELS, LoggerManager

_Function = TypeVar("_Function", bound=Callable[..., Any])

# asked for at every step: making it takes longer than asking it
_schedule = functools.lru_cache(maxsize=256)(Schedule)


class ScheduledModifier(Modifier, BaseScheduled):
    """A modifier that acts once when it starts and once when it ends.

    ``start_epoch == -1`` starts at the first opportunity, ``end_epoch == -1`` never ends.
    Subclasses override :meth:`update`, which runs only through :meth:`scheduled_update`; inside it
    :meth:`start_pending` and :meth:`end_pending` still tell why it was called.
    """

    # subclasses may say of which types the arguments are
    start_epoch: Any
    end_epoch: Any
    _progress: ClassVar[tuple[str, ...]] = ("_started", "_ended", "_last_log_epoch")

    def __init__(
        self,
        start_epoch: float = -1.0,
        min_start: float = -1.0,
        end_epoch: float = -1.0,
        min_end: float = -1.0,
        end_comparator: int | None = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            start_epoch=start_epoch,
            min_start=min_start,
            end_epoch=end_epoch,
            min_end=min_end,
            end_comparator=end_comparator,
            **kwargs,
        )
        self._started = False
        self._ended = False
        self._schedule_called = False
        self._scheduled_log_called = False
        self._last_log_epoch = -1.0
        self._last_update_epoch = -1.0

    @ModifierProp(serializable=False)
    def started(self) -> bool:
        """Whether the start has been reached."""
        return self._started

    @ModifierProp(serializable=False)
    def ended(self) -> bool:
        """Whether the end has been reached."""
        return self._ended

    @property
    def schedule(self) -> Schedule:
        """When this modifier acts, as a value; in steps as long as these are not resolved."""
        in_steps = not self._steps_resolved
        return _schedule(
            self._start_epoch,
            self._end_epoch,
            self._update_frequency,
            self._start_step if in_steps else None,
            self._end_step if in_steps else None,
            self._update_steps,
        )

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Attach to a model. May be called again.

        :param epoch: as for :meth:`Modifier.initialize`
        :param kwargs: ``steps_per_epoch`` (int) fixes a schedule that is given in optimizer steps
        """
        steps_per_epoch = kwargs.get("steps_per_epoch")
        if self.has_steps and steps_per_epoch:
            self.resolve_steps(steps_per_epoch)
        super().initialize(module, epoch, loggers, **kwargs)

    def start_pending(self, epoch: float, steps_per_epoch: int) -> bool:
        """Return whether the modifier is due to start at ``epoch``; False when disabled."""
        return self._due("start_pending", epoch, steps_per_epoch) == "start"

    def end_pending(self, epoch: float, steps_per_epoch: int) -> bool:
        """Return whether the modifier is due to end at ``epoch``; False when disabled."""
        return self._due("end_pending", epoch, steps_per_epoch) == "end"

    def update_ready(self, epoch: float, steps_per_epoch: int) -> bool:
        """Return whether :meth:`scheduled_update` is due at ``epoch``; False when disabled."""
        return self._due("update_ready", epoch, steps_per_epoch) != ""

    def scheduled_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Run :meth:`update`, then note whether this started or ended the modifier.

        :raises RuntimeError: when :meth:`update_ready` is False
        """
        if not self.update_ready(epoch, steps_per_epoch):
            raise RuntimeError(
                f"{type(self).__name__}.scheduled_update was called at epoch {epoch}, where no "
                "update is due; check update_ready first"
            )
        self._schedule_called = True
        try:
            self.update(module, optimizer, epoch, steps_per_epoch)
        finally:
            self._schedule_called = False
        if self.start_pending(epoch, steps_per_epoch):
            self._started = True
        if self.end_pending(epoch, steps_per_epoch):
            self._ended = True

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Do what is to be done at the start, at the end and, if it repeats, in between.

        :raises RuntimeError: when called other than through :meth:`scheduled_update`
        """
        if not (self._schedule_called and self._initialized and self._enabled):
            self._require_active("update")
            raise RuntimeError(
                f"{type(self).__name__}.update must not be called directly; call scheduled_update"
            )
        self._last_update_epoch = epoch

    def share_at(self, epoch: float) -> float:
        """Return how much of what it leads to is done by an update at ``epoch``, from 0 to 1.

        A modifier that leads to nothing, or whose sparsity may be asked for, is always done.
        """
        return 1.0

    def scheduled_log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Run :meth:`log_update` if the loggers want to hear at ``epoch``."""
        if not (self._initialized and self._enabled and self._loggers_initialized):
            self._require_active("scheduled_log_update")
            self._require_loggers("scheduled_log_update")
        if self._loggers is None or not self._loggers.log_ready(epoch, self._last_log_epoch):
            return
        self._last_log_epoch = epoch
        self._scheduled_log_called = True
        try:
            self.log_update(module, optimizer, epoch, steps_per_epoch)
        finally:
            self._scheduled_log_called = False

    def log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the present state.

        :raises RuntimeError: when called other than through :meth:`scheduled_log_update`
        """
        if not (self._scheduled_log_called and self._initialized and self._enabled):
            super().log_update(module, optimizer, epoch, steps_per_epoch)
            raise RuntimeError(
                f"{type(self).__name__}.log_update must not be called directly; "
                "call scheduled_log_update"
            )

    def log_string(
        self,
        string: str,
        tag: str | None = None,
        loggers: LoggerManager | None = None,
        epoch: float | None = None,
        steps_per_epoch: int | None = None,
        level: int | None = None,
    ) -> None:
        """Log a line of text; ``tag`` defaults to the class name, ``level`` to debug."""
        level = LOGGING_LEVELS["debug"] if level is None else level
        target = loggers if loggers else self._loggers
        if target is not None:
            step = target.epoch_to_step(epoch, steps_per_epoch)
            target.log_string(tag or type(self).__name__, string, step, level=level)

    def log_scalar(
        self,
        value: float,
        tag: str | None = None,
        loggers: LoggerManager | None = None,
        epoch: float | None = None,
        steps_per_epoch: int | None = None,
        level: int | None = None,
    ) -> None:
        """Log a number; it has no step when ``epoch`` is None or infinite."""
        target = loggers if loggers else self._loggers
        if target is not None:
            step = target.epoch_to_step(epoch, steps_per_epoch)
            target.log_scalar(tag or type(self).__name__, value, step, level=level)

    def log_named_scalars(
        self,
        name_value_pairs: Iterable[tuple[str, float]],
        loggers: LoggerManager | None = None,
        epoch: float | None = None,
        steps_per_epoch: int | None = None,
        level: int | None = None,
    ) -> None:
        """Log several numbers, each under ``<class name>/<name>``."""
        for name, value in name_value_pairs:
            tag = f"{type(self).__name__}/{name}"
            self.log_scalar(value, tag, loggers, epoch, steps_per_epoch, level)

    @staticmethod
    def log_call(func: _Function) -> _Function:
        """Make a method, as its decorator, log arguments and result when its ``epoch`` is due."""
        signature = inspect.signature(func)

        @functools.wraps(func)
        def logged(self: ScheduledModifier, *args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(self, *args, **kwargs).arguments
            epoch = arguments.get("epoch")
            at = {"epoch": epoch, "steps_per_epoch": arguments.get("steps_per_epoch")}
            last = self._last_log_epoch
            if self._loggers is None or not self._loggers.log_ready(epoch, last):
                return func(self, *args, **kwargs)
            self.log_string(f"Calling {func.__name__} with args {args} and kwargs {kwargs}", **at)
            result = func(self, *args, **kwargs)
            self.log_string(f"{func.__name__} returned {result}", **at)
            return result

        return logged  # type: ignore[return-value]

    def _due(self, caller: str, epoch: float, steps_per_epoch: int) -> Reason:
        if not self._initialized:
            self._require_initialized(caller)
        if not self._enabled:
            return ""
        if not self._steps_resolved:
            self.check_steps_resolved(epoch)
        last, started, ended = self._last_update_epoch, self._started, self._ended
        return self.schedule.due(epoch, steps_per_epoch, last, started, ended)


class ScheduledUpdateModifier(ScheduledModifier, BaseUpdate):
    """A scheduled modifier that also acts in between, every ``update_frequency`` epochs.

    ``update_frequency == -1`` means at every step. The interval counts from the last update, so a
    frequency that is no multiple of a step is effectively rounded up to one; ``update_steps``
    (a whole number of optimizer steps) is exact.
    """

    update_frequency: Any
    _progress: ClassVar[tuple[str, ...]] = ("_last_update_epoch",)

    def __init__(
        self,
        start_epoch: float = -1.0,
        min_start: float = -1.0,
        end_epoch: float = -1.0,
        min_end: float = -1.0,
        end_comparator: int | None = 0,
        update_frequency: float = -1.0,
        min_frequency: float = -1.0,
        **kwargs: Any,
    ) -> None:
        kwargs |= {"update_frequency": update_frequency, "min_frequency": min_frequency}
        super().__init__(start_epoch, min_start, end_epoch, min_end, end_comparator, **kwargs)

    def update_ready(self, epoch: float, steps_per_epoch: int) -> bool:
        """Return whether a start, an end or an update in between is due; False when disabled."""
        # other than a modifier that does not repeat, a disabled one may be asked uninitialised
        return self._enabled and self._due("update_ready", epoch, steps_per_epoch) != ""
