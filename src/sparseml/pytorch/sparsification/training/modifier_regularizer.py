"""Setting the weight decay."""

from __future__ import annotations

from collections.abc import Iterable

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
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML, ScheduledModifier
from sparseml.pytorch.sparsification.training.param_groups import checked_groups, selected_groups
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.text import few


@PyTorchModifierYAML()
@declared_fields()
class SetWeightDecayModifier(ScheduledModifier):
    """Sets the optimizer's weight decay to a value when it starts.

    | Sample yaml:
    |   !SetWeightDecayModifier
    |       start_epoch: 5.0
    |       weight_decay: 0.0

    :param weight_decay: at least 0
    :param param_groups: indices of the groups to set; all if None
    :param end_epoch: accepted for the sake of old recipes; the value set is never taken back
    :param constant_logging: log whether or not the value has changed
    """

    weight_decay: float | str = field(between(least=0.0))
    start_epoch: float = -1.0
    param_groups: Iterable[int] | None = field(checked_groups, default=None)
    end_epoch: float = ignored(default=-1.0)
    constant_logging: bool = field(as_flag, default=False)
    end_comparator: int = fixed(-1)

    sparsification_types = of_types(SparsificationTypes.regularization)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Set the weight decay.

        :raises IndexError: if the optimizer lacks one of ``param_groups``
        :raises ValueError: if a group has no weight decay
        """
        super().update(module, optimizer, epoch, steps_per_epoch)
        if not self.start_pending(epoch, steps_per_epoch):
            return
        for index in selected_groups(optimizer, self.param_groups):
            group = optimizer.param_groups[index]
            if "weight_decay" not in group:
                raise ValueError(
                    f"{type(optimizer).__name__} has no weight_decay in parameter group {index}; "
                    f"it has {few(sorted(set(group) - {'params'}), 12)}"
                )
            group["weight_decay"] = float(self.weight_decay)

    def log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the weight decay that was set."""
        super().log_update(module, optimizer, epoch, steps_per_epoch)
        self.log_scalar(
            float(self.weight_decay),
            tag="Modifier Weight Decay",
            epoch=epoch,
            steps_per_epoch=steps_per_epoch,
        )
