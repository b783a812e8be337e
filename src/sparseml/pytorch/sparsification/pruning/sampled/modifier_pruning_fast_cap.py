"""Gradual correlation-aware pruning with one small Fisher matrix per weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparseml.pytorch.sparsification.fields import (
    declared_fields,
    field,
    new_field,
    one_of,
    plainly,
    stated,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.fast_cap import FastCAP
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.settings import fisher_fields
from sparseml.pytorch.sparsification.pruning.settings.effort import effort_field
from sparseml.pytorch.sparsification.pruning.settings.fields import as_count, as_optional_keywords


@PyTorchModifierYAML()
@declared_fields(GradualFields)
class FastCAPruningModifier(BaseGradualPruningModifier):
    """Prunes columns from left to right, the columns to come making up for what goes.

    Kuznedelev et al., "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models"
    (2023), algorithm 2. Takes ``fisher_block_size`` squared values per parameter.

    | Sample yaml:
    |   !FastCAPruningModifier
    |       init_sparsity: 0.4
    |       final_sparsity: 0.9
    |       start_epoch: 0.0
    |       end_epoch: 8.0
    |       update_frequency: 2.0
    |       params: ['re:.*(attn.(qkv|proj)|mlp.fc\\d+).weight']
    |       num_grads: 128
    |       damp: 1e-2
    |       fisher_block_size: 192

    :param mask_type: ``unstructured``
    :param num_grads: gradients to sample for each update, on all ranks together
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param damp: dampening, relative to the mean diagonal of each Fisher matrix; or ``auto``, as of
        :class:`OBSPruningModifier`
    :param fisher_block_size: columns of the matrix that each weight is seen as
    :param fisher_inv_device: where Fisher matrices live; None: with each weight
    :param block_size: columns that share a threshold and an update; None: all
    :param fisher_samples: as of :class:`OBSPruningModifier`
    :param fisher_dtype: ``float32`` or ``float64``
    :param global_sparsity: always False; every parameter gets the sparsity asked for
    :param effort: ``fast``, ``balanced`` or ``best``: sets num_grads, fisher_samples,
        fisher_block_size and damp, whatever is said of them beside
    :raises ValueError: for a field out of its range
    """

    mask_type: str = field(one_of(("unstructured",)), default="unstructured")
    num_grads: int = field(as_count, default=1024)
    damp: float | str = field(plainly(fisher_fields.as_damp), default=1e-7)
    fisher_block_size: int = field(as_count, default=50)
    fisher_inv_device: str | None = field(fisher_fields.as_device, default=None)
    block_size: int | None = field(fisher_fields.as_optional_count, default=None)
    grad_sampler_kwargs: Mapping[str, Any] | None = field(as_optional_keywords, default=None)
    fisher_samples: str = new_field(fisher_fields.as_samples, default="batch")
    fisher_dtype: str = new_field(fisher_fields.as_fisher_dtype, default="float32")
    global_sparsity: bool = stated(
        default=False, why="every parameter is pruned by itself; CAPruningModifier can rank all"
    )
    effort: str | None = effort_field()
    _order_dependence = ""

    def _get_method(self) -> FastCAP:
        settings = fisher_fields.fisher_settings(self)
        return FastCAP(type(self).__name__, self.fisher_block_size, self.block_size, settings)
