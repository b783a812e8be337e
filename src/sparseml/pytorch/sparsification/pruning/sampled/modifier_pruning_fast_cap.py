"""Gradual correlation-aware pruning with one small Fisher matrix per weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sparseml.pytorch.functional.patterns import parse_pattern
from sparseml.pytorch.functional.second_order.shared_rows import ORDERS
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_given,
    declared_fields,
    field,
    new_field,
    one_of,
    plainly,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.fast_cap import FastCAP
from sparseml.pytorch.sparsification.pruning.methods.row_passes import RowRule
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.settings import fisher_fields
from sparseml.pytorch.sparsification.pruning.settings.effort import effort_field
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    MaskType,
    as_count,
    as_optional_fraction,
    as_optional_keywords,
)

_AS_CAP = {"ranking": "elimination", "weight_update": "joint"}


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

    :param mask_type: ``unstructured``, runs of inputs (``block4``, ``1x8``, ``[1, 8]``) or ``N:M``,
        which keeps N of M
    :param num_grads: gradients to sample for each update, on all ranks together; of inputs,
        the batches that are looked at
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param damp: dampening, relative to the mean diagonal of each Fisher matrix; or ``auto``, as of
        :class:`OBSPruningModifier`
    :param fisher_block_size: columns of the matrix that each weight is seen as; not used with
        matrices of inputs, which have all columns of a row
    :param fisher_inv_device: where Fisher matrices live; None: with each weight
    :param block_size: columns that share a threshold and an update; None: all
    :param fisher_samples: as of :class:`OBSPruningModifier`
    :param fisher_dtype: ``float32`` or ``float64``
    :param global_sparsity: rank the weights of all parameters together; inputs alone cannot, as
        outputs of different layers have no measure in common
    :param max_sparsity_per_param: with global_sparsity, no parameter gets sparser than this
    :param min_sparsity_per_param: with global_sparsity, at the end no parameter is denser than
        ``1 - min_sparsity_per_param``
    :param fisher: what the matrix is of: ``gradients``; ``inputs``, the second moment of what a
        layer is given, as in SparseGPT, by forward passes alone; or ``both``, that of the inputs
        with a factor for each row by its gradients. Inputs are those of linear layers or
        convolutions, without the tokens that the batch's ``attention_mask`` leaves out
    :param order: of the columns: ``natural``, ``diagonal``, the largest diagonal first, or
        ``loss``, those first that would lose most
    :param ranking: what a weight costs: ``columns``, when the sweep comes to it, or
        ``elimination``, when its row loses its weights one after another, as in CAP; better, and
        takes as long for each row as CAP for a block of that size
    :param weight_update: ``sweep``, only columns still to come make up for what goes, or
        ``joint``, the best weights of whole rows for the mask (one Cholesky factor for each row)
    :param gradients_of: as of :class:`OBSPruningModifier`
    :param effort: ``fast``, ``balanced`` or ``best``: sets num_grads, fisher_samples, gradients_of,
        fisher_block_size, damp, ranking and weight_update, whatever is said of them beside;
        ``best`` also fisher, which takes long where rows have thousands of weights
    :raises ValueError: for a field out of its range
    """

    mask_type: MaskType = field(as_given, default="unstructured")
    num_grads: int = field(as_count, default=1024)
    damp: float | str = field(plainly(fisher_fields.as_damp), default=1e-7)
    fisher_block_size: int = field(as_count, default=50)
    fisher_inv_device: str | None = field(fisher_fields.as_device, default=None)
    block_size: int | None = field(fisher_fields.as_optional_count, default=None)
    grad_sampler_kwargs: Mapping[str, Any] | None = field(as_optional_keywords, default=None)
    fisher_samples: str = new_field(fisher_fields.as_samples, default="batch")
    fisher_dtype: str = new_field(fisher_fields.as_fisher_dtype, default="float32")
    global_sparsity: bool = new_field(as_flag, default=False)
    max_sparsity_per_param: float | None = new_field(as_optional_fraction, default=None)
    min_sparsity_per_param: float | None = new_field(as_optional_fraction, default=None)
    fisher: str = new_field(one_of(("gradients", "inputs", "both")), default="gradients")
    order: str = new_field(one_of(ORDERS), default="natural")
    ranking: str = new_field(one_of(("columns", "elimination")), default="columns")
    weight_update: str = new_field(one_of(("sweep", "joint")), default="sweep")
    gradients_of: str = new_field(fisher_fields.as_gradients_of, default="loss")
    effort: str | None = effort_field()
    _efforts: ClassVar[dict[str, dict[str, str]]] = {  # beside the values of all
        "fast": _AS_CAP, "balanced": _AS_CAP, "best": {**_AS_CAP, "fisher": "both"},
    }  # fmt: skip
    _order_dependence = ""

    def _set_up(self) -> None:
        name, pattern = type(self).__name__, parse_pattern(self._mask_type)
        try:
            run = self._rule().run(pattern)
        except ValueError as error:
            raise ValueError(
                f"mask_type of {name} must be unstructured, block4, 1xk, [1, k] or N:M (N kept of "
                f"M), found {self._mask_type!r}: {error}"
            ) from None
        if self.fisher == "gradients" and self.fisher_block_size % run:
            raise ValueError(
                f"fisher_block_size of {name} must be a multiple of {run} with {self._mask_type} "
                f"masks, found {self.fisher_block_size}"
            )
        if self.fisher == "inputs" and self.fisher_samples == "sample":
            raise ValueError(f"fisher_samples of {name} is of gradients, and fisher is inputs")
        if self.fisher == "inputs" and self.gradients_of == "outputs" and self.effort is None:
            raise ValueError(
                f"{name} with fisher: inputs samples no gradients: leave gradients_of out"
            )
        if self.fisher == "inputs" and self._global_sparsity:
            raise ValueError(
                f"global_sparsity of {name} needs fisher: gradients or both, as inputs do not tell "
                "how the loss compares the outputs of different layers"
            )
        if self.block_size is not None and (
            run > 1 or self._global_sparsity or self._rule() != RowRule()
        ):
            raise ValueError(
                f"block_size of {name}, columns that share a threshold, is for unstructured masks "
                "of each parameter by itself, with the default order, ranking, weight_update and "
                f"fisher; found {self.block_size}"
            )

    def _rule(self) -> RowRule:
        return RowRule(self.fisher, self.order, self.ranking, self.weight_update)

    def _get_method(self) -> FastCAP:
        settings, size = fisher_fields.fisher_settings(self), self.fisher_block_size
        return FastCAP(type(self).__name__, size, self.block_size, settings, self._rule())
