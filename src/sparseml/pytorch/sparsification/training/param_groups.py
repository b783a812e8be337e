"""Reading, setting and logging what an optimizer keeps per parameter group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.fields import as_number
from sparseml.pytorch.sparsification.modifier import ScheduledModifier
from sparseml.pytorch.utils.optimizers import get_optim_groups_learning_rates

__all__ = [
    "LearningRateLogging",
    "checked_groups",
    "rate_above_zero",
    "rate_or_zero",
    "selected_groups",
]


def rate_above_zero(name: str, value: float | str) -> float:
    """A learning rate in (0, 1].

    :raises ValueError: for another number or a text that is none
    """
    rate = as_number(name, value)
    if not 0.0 < rate <= 1.0:
        raise ValueError(f"{name} must be greater than 0 and at most 1, found {rate}")
    return rate


def rate_or_zero(name: str, value: float | str) -> float:
    """A learning rate in [0, 1].

    :raises ValueError: for another number or a text that is none
    """
    rate = as_number(name, value)
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"{name} must be at least 0 and at most 1, found {rate}")
    return rate


def checked_groups(name: str, param_groups: Iterable[int] | None) -> list[int] | None:
    """The indices as a list; None stands for all groups.

    :raises ValueError: for an empty list, with which there would be nothing to do, and for
        anything but whole numbers that are not negative
    """
    if param_groups is None:
        return None
    indices = list(param_groups) if isinstance(param_groups, Iterable) else [param_groups]
    valid = all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in indices)
    if not indices or not valid:
        raise ValueError(
            f"{name} must list indices of the optimizer's parameter groups (0, 1, ...), or be "
            f"left out for all of them; found {param_groups!r}"
        )
    return indices


def selected_groups(optimizer: Optimizer, indices: Iterable[int] | None) -> list[int]:
    """The indices to act on, all of the optimizer's if None.

    :raises IndexError: for an index that no group has
    """
    count = len(optimizer.param_groups)
    chosen = list(range(count) if indices is None else indices)
    for index in chosen:
        if index >= count:
            raise IndexError(
                f"param_groups names group {index}, but the optimizer has {count} "
                f"(0 to {count - 1})"
            )
    return chosen


class LearningRateLogging(ScheduledModifier):
    """Logs the learning rate of each group as ``<class name>/ParamGroup<i>``.

    Logs when a rate differs from what was logged last or, with ``constant_logging``, every time.
    """

    _constant_logging = True
    _last_logged_rates: list[float] | None = None

    def log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the rates now in the optimizer."""
        super().log_update(module, optimizer, epoch, steps_per_epoch)
        rates = get_optim_groups_learning_rates(optimizer)
        if not self._constant_logging and rates == self._last_logged_rates:
            return
        self._last_logged_rates = rates
        named = ((f"ParamGroup{index}", rate) for index, rate in enumerate(rates))
        self.log_named_scalars(named, epoch=epoch, steps_per_epoch=steps_per_epoch)

    def progress_state(self) -> dict[str, Any]:
        """Adds the rates logged last."""
        return {**super().progress_state(), "last_logged_rates": self._last_logged_rates}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restores the rates logged last."""
        super().load_progress_state(state)
        self._last_logged_rates = state["last_logged_rates"]
