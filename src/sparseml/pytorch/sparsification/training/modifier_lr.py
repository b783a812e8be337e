"""Setting the learning rate, once or by a function of the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.learning_rates import (
    cosine_rate,
    cyclic_linear_rate,
    linear_rate,
)
from sparseml.pytorch.sparsification.fields import as_number, field, flag_field, one_of
from sparseml.pytorch.sparsification.modifier import (
    ModifierProp,
    PyTorchModifierYAML,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.training.modifier_lr_schedule import LearningRateModifier
from sparseml.pytorch.sparsification.training.param_groups import (
    LearningRateLogging,
    param_groups_field,
    rate_above_zero,
    rate_or_zero,
    selected_groups,
)
from sparseml.pytorch.utils.optimizers import set_optim_learning_rate
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["LearningRateFunctionModifier", "LearningRateModifier", "SetLearningRateModifier"]


def _positive(name: str, value: Any) -> float:
    number = as_number(name, value)
    if not 0.0 < number < math.inf:
        raise ValueError(f"{name} must be greater than 0, found {number}")
    return number


@PyTorchModifierYAML()
class SetLearningRateModifier(LearningRateLogging):
    """Sets the learning rate to a value when it starts.

    | Sample yaml:
    |   !SetLearningRateModifier
    |       start_epoch: 0.0
    |       learning_rate: 0.001
    |       param_groups: [0]

    :param learning_rate: in (0, 1]
    :param param_groups: indices of the groups to set; all if None
    :param end_epoch: accepted for the sake of old recipes; the rate set is never taken back
    :param constant_logging: log whether or not the rate has changed
    """

    def __init__(
        self,
        learning_rate: float | str,
        param_groups: Iterable[int] | None = None,
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        constant_logging: bool = False,
    ) -> None:
        super().__init__(start_epoch=start_epoch, end_epoch=-1.0, end_comparator=None)
        self.learning_rate = learning_rate
        self.param_groups = param_groups
        self.constant_logging = constant_logging
        self._applied_learning_rate = -1.0

    learning_rate = field("learning_rate", rate_above_zero, "The learning rate to set.")
    param_groups = param_groups_field()
    constant_logging = flag_field("constant_logging", "Whether to log also unchanged rates.")

    @ModifierProp(serializable=False)
    def sparsification_types(self) -> list[SparsificationTypes]:
        """Learning rate."""
        return [SparsificationTypes.learning_rate]

    @ModifierProp(serializable=False)
    def applied_learning_rate(self) -> float:
        """The rate that was set; -1 before."""
        return self._applied_learning_rate

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Set the learning rate.

        :raises IndexError: if the optimizer lacks one of ``param_groups``
        """
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self.start_pending(epoch, steps_per_epoch):
            groups = selected_groups(optimizer, self.param_groups)
            set_optim_learning_rate(optimizer, self.learning_rate, groups)
            self._applied_learning_rate = self.learning_rate

    def progress_state(self) -> dict[str, Any]:
        """Adds the rate that was set."""
        state = super().progress_state()
        return {**state, "applied_learning_rate": self._applied_learning_rate}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restores the rate that was set."""
        super().load_progress_state(state)
        self._applied_learning_rate = state["applied_learning_rate"]


@PyTorchModifierYAML()
class LearningRateFunctionModifier(LearningRateLogging, ScheduledUpdateModifier):
    """Leads the learning rate along a curve, at every step from start to end.

    ``linear`` and ``cosine`` lead from ``init_lr`` to ``final_lr``; ``cyclic_linear`` does so over
    and over, and at the end stays at ``init_lr``.

    | Sample yaml:
    |   !LearningRateFunctionModifier
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       lr_func: linear
    |       init_lr: 0.1
    |       final_lr: 0.001

    :param lr_func: ``linear``, ``cosine`` or ``cyclic_linear``
    :param init_lr: in [0, 1]
    :param final_lr: in [0, 1]
    :param cycle_epochs: length of a cycle of ``cyclic_linear``
    :param param_groups: indices of the groups to set; all if None
    :param update_frequency: accepted for the sake of old recipes; every step is an update
    """

    def __init__(
        self,
        lr_func: str,
        init_lr: float | str,
        final_lr: float | str,
        start_epoch: float,
        end_epoch: float,
        cycle_epochs: float = 1.0,
        param_groups: Iterable[int] | None = None,
        update_frequency: float = -1.0,
    ) -> None:
        super().__init__(
            start_epoch=start_epoch, end_epoch=end_epoch, end_comparator=1, update_frequency=-1.0
        )
        self.lr_func = lr_func
        self.init_lr = init_lr
        self.final_lr = final_lr
        self.cycle_epochs = cycle_epochs
        self.param_groups = param_groups

    lr_func = field("lr_func", one_of(("linear", "cosine", "cyclic_linear")), "The curve.")
    init_lr = field("init_lr", rate_or_zero, "The learning rate at the start.")
    final_lr = field("final_lr", rate_or_zero, "The learning rate at the end (of each cycle).")
    cycle_epochs = field("cycle_epochs", _positive, "Epochs in a cycle of ``cyclic_linear``.")
    param_groups = param_groups_field()

    @ModifierProp(serializable=False)
    def sparsification_types(self) -> list[SparsificationTypes]:
        """Learning rate."""
        return [SparsificationTypes.learning_rate]

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Set the learning rate that belongs to ``epoch``.

        :raises IndexError: if the optimizer lacks one of ``param_groups``
        """
        super().update(module, optimizer, epoch, steps_per_epoch)
        groups = selected_groups(optimizer, self.param_groups)
        set_optim_learning_rate(optimizer, self._rate(epoch, steps_per_epoch), groups)

    def _rate(self, epoch: float, steps_per_epoch: int) -> float:
        start = max(self._start_epoch, 0.0)
        length, done = self._end_epoch - start, epoch - start
        if self.lr_func == "cyclic_linear":
            return cyclic_linear_rate(
                done * steps_per_epoch,
                length * steps_per_epoch,
                self.cycle_epochs * steps_per_epoch,
                self.init_lr,
                self.final_lr,
            )
        curve = linear_rate if self.lr_func == "linear" else cosine_rate
        return curve(done / length, self.init_lr, self.final_lr)
