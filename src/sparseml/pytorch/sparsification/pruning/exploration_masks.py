"""Masks of gradients, beside the masks of the weights they belong to."""

from __future__ import annotations

import logging
from typing import Any

from sparseml.pytorch.functional.top_kast import exploration_decay
from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask
from sparseml.pytorch.sparsification.pruning.optimizer_state import clear_optimizer_state

__all__ = ["ExplorationMasks"]

_LOGGER = logging.getLogger(__name__)


class ExplorationMasks(ModuleParamPruningMask):
    """Leaves the gradients of more weights alone than are active, so that the others explore.

    :param active: the masks of the weights, which allow reintroduction
    :param forward_sparsity: of ``active``, below 1
    :param backward_sparsity: of these masks
    """

    def __init__(
        self, active: ModuleParamPruningMask, forward_sparsity: float, backward_sparsity: float
    ) -> None:
        if backward_sparsity > forward_sparsity:
            _LOGGER.warning(
                "backward_sparsity %g is above forward_sparsity %g: some active weights do not "
                "train, and no others do",
                backward_sparsity,
                forward_sparsity,
            )
        super().__init__(
            active.layers,
            active.mask_creator,
            active.scorer,
            active.param_names,
            mask_gradients_only=True,
            layer_names=active.layer_names,
            global_sparsity=active.global_sparsity,
            forward_hooks=False,
        )
        self._active = active
        self._density = 1.0 - forward_sparsity
        self._backward_sparsity = backward_sparsity
        self._before_update = self.param_masks

    def update_from_all(self) -> None:
        """Rank all weights, those that are masked away included; put the masks in force."""
        self._active.restore_unmasked()
        self.enabled = True
        self._before_update = self.param_masks
        self.update_param_masks(self._backward_sparsity)

    def forget_changed(self, optimizer: Any) -> None:
        """Clear what the optimizer remembers of weights that the update has put in or out."""
        if clear_optimizer_state(optimizer, self.params, self._before_update, self.param_masks):
            self.mask_gradients()

    def decay(self, rate: float) -> None:
        """Shrink the weights, while what is masked away is put back.

        :param rate: strength of the decay times the learning rate
        """
        if not (self._active.enabled and self._active.allow_reintroduction):
            return
        masks = zip(self._active.param_masks, self.param_masks, strict=True)
        for param, (active, trained) in zip(self.params_data, masks, strict=True):
            param.copy_(exploration_decay(param, active, trained, rate, self._density))
