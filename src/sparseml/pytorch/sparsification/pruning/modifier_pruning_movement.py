"""Gradual pruning by movement."""

from __future__ import annotations

import logging
from typing import Any

from torch.nn import Module, Parameter

from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.modifier_pruning_magnitude import (
    LayerwiseGMPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.scorer import (
    MovementPruningParamsScorer,
    PruningParamsScorer,
)

_LOGGER = logging.getLogger(__name__)

__all__ = ["MovementPruningModifier"]


@PyTorchModifierYAML()
class MovementPruningModifier(LayerwiseGMPruningModifier):
    """Prunes the weights that training moves towards zero: Sanh et al., "Movement pruning" (2020).

    Movement is summed from the first optimizer step on, so the start should leave some steps for
    that. It has no use in one shot, where nothing has moved.

    | Sample yaml:
    |   !MovementPruningModifier
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 1.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: ['re:.*weight']
    """

    def _before_mask_update(self, module: Module, target: Any) -> None:
        super()._before_mask_update(module, target)
        if isinstance(self._scorer, MovementPruningParamsScorer) and not self._scorer.has_moved():
            _LOGGER.warning(
                "%s: no weight has moved yet, so nothing tells which ones to prune; the choice is "
                "arbitrary. Start later than the first step, and not in one shot",
                type(self).__name__,
            )

    def _get_scorer(self, params: list[Parameter]) -> PruningParamsScorer:
        return MovementPruningParamsScorer(params)
