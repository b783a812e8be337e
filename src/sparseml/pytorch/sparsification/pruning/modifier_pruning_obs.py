"""Gradual pruning by the Optimal Brain Surgeon."""

from __future__ import annotations

from sparseml.lazy import lazy_names
from sparseml.pytorch.functional.patterns import parse_pattern
from sparseml.pytorch.sparsification.fields import declared_fields
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.obs import OptimalBrainSurgeon
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.settings import fisher_fields

# what was defined here in SparseML 1.x
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sparseml.legacy.pruning.scorer": "OBSPruningParamsScorer",
        "sparseml.pytorch.functional.second_order.fisher": "EmpiricalBlockFisherInverse",
    },
)


@PyTorchModifierYAML()
@declared_fields(GradualFields, fisher_fields.FisherFields, synonyms={"update": "weight_update"})
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

    The default of one weight per block, that of SparseML 1.x, knows no correlations: the ready
    recipes have blocks of 192 (ViTs) or 256 (ResNets) and ``damp: auto``.

    :param mask_type: as of :class:`GMPruningModifier`. Units that do not lie in one block of the
        Fisher matrix cost what their parts in each block cost together
    :raises ValueError: for a field out of its range
    """

    _order_dependence = ""

    def _set_up(self) -> None:
        pattern, size = (
            parse_pattern(self._mask_type),
            fisher_fields.block_rule(self, False).block_size,
        )
        if size % max(pattern.run, 1):
            raise ValueError(
                f"fisher_block_size of {type(self).__name__} must be a multiple of {pattern.run} "
                f"with {self._mask_type} masks, found {size}"
            )

    def _get_method(self) -> OptimalBrainSurgeon:
        rule = fisher_fields.block_rule(self, eliminate=False)
        return OptimalBrainSurgeon(type(self).__name__, rule, fisher_fields.fisher_settings(self))
