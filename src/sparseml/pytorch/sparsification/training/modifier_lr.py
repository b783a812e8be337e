"""Setting the learning rate once; the modifiers that lead it along are handed on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.fields import field, flag_field
from sparseml.pytorch.sparsification.modifier import ModifierProp, PyTorchModifierYAML
from sparseml.pytorch.sparsification.training.modifier_lr_function import (
    LearningRateFunctionModifier,
)
from sparseml.pytorch.sparsification.training.modifier_lr_schedule import LearningRateModifier
from sparseml.pytorch.sparsification.training.param_groups import (
    LearningRateLogging,
    param_groups_field,
    rate_above_zero,
    selected_groups,
)
from sparseml.pytorch.utils.optimizers import set_optim_learning_rate
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["LearningRateFunctionModifier", "LearningRateModifier", "SetLearningRateModifier"]


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
