"""Masks of gradients, beside the masks of the weights they belong to."""

from __future__ import annotations

import logging

from sparseml.pytorch.functional.scores import exploration_decay
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet

_LOGGER = logging.getLogger(__name__)


class ExplorationMasks(MaskSet):
    """Leaves the gradients of more weights alone than are active, so that the others explore.

    :param active: the masks of the weights, which allow reintroduction
    :param forward_sparsity: of ``active``, below 1
    :param backward_sparsity: of these masks
    """

    def __init__(self, active: MaskSet, forward_sparsity: float, backward_sparsity: float) -> None:
        if backward_sparsity > forward_sparsity:
            text = "backward_sparsity %g is above forward_sparsity %g: some active weights do not "
            text += "train, and no others do"
            _LOGGER.warning(text, backward_sparsity, forward_sparsity)
        super().__init__(active.found, gradients_only=True)
        self._active = active
        self._density = 1.0 - forward_sparsity

    def decay(self, rate: float) -> None:
        """Shrink the weights, masked ones put back, by a rate: decay times learning rate."""
        if not (self._active.enabled and self._active.allow_reintroduction):
            return
        masks = zip(self._active.param_masks, self.param_masks, strict=True)
        for param, (active, trained) in zip(self.params, masks, strict=True):
            new = exploration_decay(param.data, active, trained, rate, self._density)
            param.data.copy_(new)
