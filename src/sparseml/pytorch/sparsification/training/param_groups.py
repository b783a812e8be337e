"""Reading, setting and logging what an optimizer keeps per parameter group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.modifier import ScheduledModifier
from sparseml.pytorch.utils.optimizers import get_optim_groups_learning_rates


def checked_groups(name: str, param_groups: Iterable[int] | None) -> list[int] | None:
    """Return the indices as a list; None stands for all groups.

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
    """Return the indices to act on, all of the optimizer's if None.

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
    _progress: ClassVar[tuple[str, ...]] = ("_last_logged_rates",)

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
