"""Setting the learning rate once; the modifiers that lead it along are handed on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.fields import (
    as_flag,
    between,
    declared_fields,
    field,
    fixed,
    ignored,
    of_types,
    plainly,
)
from sparseml.pytorch.sparsification.modifier import ModifierProp, PyTorchModifierYAML
from sparseml.pytorch.sparsification.training.modifier_lr_function import (
    LearningRateFunctionModifier,
)
from sparseml.pytorch.sparsification.training.modifier_lr_schedule import LearningRateModifier
from sparseml.pytorch.sparsification.training.param_groups import (
    LearningRateLogging,
    checked_groups,
    selected_groups,
)
from sparseml.pytorch.utils.optimizers import set_optim_learning_rate
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["LearningRateFunctionModifier", "LearningRateModifier", "SetLearningRateModifier"]


@PyTorchModifierYAML()
@declared_fields()
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

    learning_rate: float | str = field(plainly(between(above=0.0, most=1.0)))
    param_groups: Iterable[int] | None = field(checked_groups, default=None)
    start_epoch: float = -1.0
    end_epoch: float = ignored(default=-1.0)
    constant_logging: bool = field(as_flag, default=False)
    end_comparator: None = fixed(None)

    _applied_learning_rate = -1.0
    _progress: ClassVar[tuple[str, ...]] = ("_applied_learning_rate",)

    sparsification_types = of_types(SparsificationTypes.learning_rate)

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
            self._applied_learning_rate = float(self.learning_rate)
            set_optim_learning_rate(optimizer, self._applied_learning_rate, groups)
