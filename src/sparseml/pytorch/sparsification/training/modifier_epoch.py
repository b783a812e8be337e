"""How long to train."""

from __future__ import annotations

from sparseml.pytorch.sparsification.modifier import (
    ModifierProp,
    PyTorchModifierYAML,
    ScheduledModifier,
)
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["EpochRangeModifier"]


@PyTorchModifierYAML()
class EpochRangeModifier(ScheduledModifier):
    """Makes the recipe, and so the training, span at least the given epochs.

    | Sample yaml:
    |   !EpochRangeModifier
    |       start_epoch: 0.0
    |       end_epoch: 90.0
    """

    def __init__(self, start_epoch: float, end_epoch: float) -> None:
        super().__init__(start_epoch=start_epoch, end_epoch=end_epoch, end_comparator=-1)

    @ModifierProp(serializable=False)
    def sparsification_types(self) -> list[SparsificationTypes]:
        """General; epoch."""
        return [SparsificationTypes.general, SparsificationTypes.epoch]
