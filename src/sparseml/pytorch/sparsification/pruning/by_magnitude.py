"""What pruning modifiers share that score weights by magnitude, in a pattern of choice."""

from __future__ import annotations

from torch.nn import Parameter

from sparseml.pytorch.sparsification.fields import as_given, field
from sparseml.pytorch.sparsification.pruning.fields import mask_creator_for
from sparseml.pytorch.sparsification.pruning.mask_creator import MaskType, PruningMaskCreator
from sparseml.pytorch.sparsification.pruning.scorer import (
    MagnitudePruningParamsScorer,
    PruningParamsScorer,
)

__all__ = ["ByMagnitude"]


class ByMagnitude:
    """Mix-in, before the base class of a pruning modifier: the pattern and the score.

    :param mask_type: ``unstructured``, ``block4``, ``N:M``, ``filter``, ``channel``, ``RxC``, or
        ``[out, in]``
    """

    _mask_type: MaskType

    mask_type = field(as_given)  # looked at when the modifier initialises

    def _get_mask_creator(
        self, param_names: list[str], params: list[Parameter]
    ) -> PruningMaskCreator:
        return mask_creator_for(self._mask_type, param_names, params)

    def _get_scorer(self, params: list[Parameter]) -> PruningParamsScorer:
        return MagnitudePruningParamsScorer(params)
