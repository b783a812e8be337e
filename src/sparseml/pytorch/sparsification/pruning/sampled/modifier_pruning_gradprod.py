"""Gradual pruning by the product of gradient and weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparseml.pytorch.sparsification.fields import as_given, declared_fields, field
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.elementwise import GradientTimesWeight
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    MaskType,
    as_count,
    as_optional_keywords,
)


@PyTorchModifierYAML()
@declared_fields(GradualFields)
class GWProdPruningModifier(BaseGradualPruningModifier):
    """Prunes the weights whose removal changes the loss least to first order, batch by batch.

    | Sample yaml:
    |   !GWProdPruningModifier
    |       params: __ALL_PRUNABLE__
    |       num_grads: 4096
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0

    :param mask_type: as of :class:`GMPruningModifier`
    :param global_sparsity: rank the weights of all parameters together
    :param num_grads: gradients to sample for each update, on all ranks together
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param max_sparsity_per_param: with global_sparsity, no parameter gets sparser than this
    :param min_sparsity_per_param: with global_sparsity, at the end no parameter is denser than
        ``1 - min_sparsity_per_param``
    :raises ValueError: for a field out of its range
    """

    mask_type: MaskType = field(as_given, default="unstructured")
    global_sparsity: bool = False
    num_grads: int = field(as_count, default=1024)
    grad_sampler_kwargs: Mapping[str, Any] | None = field(as_optional_keywords, default=None)
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    _order_dependence = ""

    def _get_method(self) -> GradientTimesWeight:
        return GradientTimesWeight(self.num_grads)
