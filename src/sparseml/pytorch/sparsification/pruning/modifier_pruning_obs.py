"""Gradual pruning by the Optimal Brain Surgeon."""

from __future__ import annotations

from sparseml.pytorch.sparsification.fields import declared_fields
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.block_rule import BlockRule
from sparseml.pytorch.sparsification.pruning.methods.obs import OptimalBrainSurgeon
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.settings.fisher_fields import (
    FisherFields,
    fisher_settings,
    require_runs,
)

__all__ = ["OBSPruningModifier"]


@PyTorchModifierYAML()
@declared_fields(GradualFields, FisherFields, synonyms={"update": "weight_update"})
class OBSPruningModifier(BaseGradualPruningModifier):
    """Prunes what costs least by a block Fisher matrix, and lets the other weights make up for it.

    Kurtic et al., "The Optimal BERT Surgeon" (2022).

    | Sample yaml:
    |   !OBSPruningModifier
    |       params: __ALL_PRUNABLE__
    |       num_grads: 1024
    |       damp: 1e-7
    |       fisher_block_size: 50
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0

    :param mask_type: ``unstructured``, runs of inputs (``block4``, ``1x8``, ``[1, 8]``) or ``N:M``,
        which keeps N of M
    :param max_sparsity_per_param: with global_sparsity, no parameter gets sparser than this
    :param min_sparsity_per_param: with global_sparsity, at the end no parameter is denser than
        ``1 - min_sparsity_per_param``
    :raises ValueError: for a field out of its range
    """

    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None

    def _set_up(self) -> None:
        run = require_runs(type(self).__name__, self._mask_type).run
        if self.fisher_block_size % run:
            raise ValueError(
                f"fisher_block_size of {type(self).__name__} must be a multiple of {run} with "
                f"{self._mask_type} masks, found {self.fisher_block_size}"
            )

    def _get_method(self) -> OptimalBrainSurgeon:
        rule = BlockRule(
            self.fisher_block_size, layout=self.fisher_block_layout, update=self.weight_update
        )
        return OptimalBrainSurgeon(type(self).__name__, rule, fisher_settings(self))
