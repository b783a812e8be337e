"""Old path: :mod:`sparseml.pytorch.sparsification.training.modifier_logging`."""

from sparseml.pytorch.sparsification.training.modifier_logging import EpochRangeModifier

__all__ = ["EpochRangeModifier"]
