"""How long to train, and logging meanwhile how sparse the model is."""

from __future__ import annotations

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.fields import declared_fields, fixed, of_types
from sparseml.pytorch.sparsification.modifier import (
    PyTorchModifierYAML,
    ScheduledModifier,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.utils.sparsification_info import log_module_sparsification_info
from sparseml.sparsification.types import SparsificationTypes


@PyTorchModifierYAML()
@declared_fields()
class EpochRangeModifier(ScheduledModifier):
    """Makes the recipe, and so the training, span at least the given epochs.

    | Sample yaml:
    |   !EpochRangeModifier
    |       start_epoch: 0.0
    |       end_epoch: 90.0
    """

    start_epoch: float
    end_epoch: float
    end_comparator: int = fixed(-1)

    sparsification_types = of_types(SparsificationTypes.general, SparsificationTypes.epoch)


@PyTorchModifierYAML()
@declared_fields()
class SparsificationLoggingModifier(ScheduledUpdateModifier):
    """Logs operation counts, and how many parameters are zero, at every update.

    | Sample yaml:
    |   !SparsificationLoggingModifier
    |       start_epoch: 0.0
    |       end_epoch: 90.0
    |       update_frequency: 1.0

    :param update_frequency: epochs between two entries; -1 for every step
    """

    start_epoch: float
    end_epoch: float = -1.0
    update_frequency: float = 1.0
    end_comparator: int = fixed(-1)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the present state of the module; the step logged is the epoch."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self._loggers:
            log_module_sparsification_info(module, self._loggers, step=epoch)
