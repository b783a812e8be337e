"""How long to train."""

from __future__ import annotations

from sparseml.pytorch.sparsification.fields import declared_fields, fixed, of_types
from sparseml.pytorch.sparsification.modifier import (
    PyTorchModifierYAML,
    ScheduledModifier,
)
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["EpochRangeModifier"]


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
