"""Gradual pruning by the Optimal Brain Surgeon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import Parameter

from sparseml.pytorch.sparsification.fields import declared_fields, field, one_of
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning import fisher_fields
from sparseml.pytorch.sparsification.pruning.fields import as_count
from sparseml.pytorch.sparsification.pruning.fisher_passes import FisherSettings
from sparseml.pytorch.sparsification.pruning.mask_creator import MaskType
from sparseml.pytorch.sparsification.pruning.memory import as_memory
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import GradualFields
from sparseml.pytorch.sparsification.pruning.modifier_pruning_sampled import (
    SampledPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.scorer_obs import BlockRule, OBSPruningParamsScorer

__all__ = ["OBSPruningModifier"]

_UPDATES = ("simultaneous", "joint")


@PyTorchModifierYAML()
@declared_fields(synonyms={"update": "weight_update"})
class OBSPruningModifier(GradualFields, SampledPruningModifier):
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

    :param mask_type: ``unstructured`` or ``block4``
    :param num_grads: gradients to sample for each estimate, on all ranks together
    :param damp: dampening, absolute
    :param fisher_block_size: weights per block
    :param num_recomputations: steps for each update, each with an estimate of its own
    :param recomputation_inter_func: the curve between them, ``linear`` or ``cubic``
    :param fisher_inv_device: where Fisher matrices live; None: with each weight
    :param weight_update: ``simultaneous``, as SparseML 1.x adds up the updates of single weights,
        or ``joint``, the best one for all that go
    :param fisher_block_layout: ``padded``, ``divisor`` (blocks grow to a divisor of the weight's
        size) or ``row`` (no block straddles two outputs)
    :param fisher_samples: ``batch``, one gradient per batch, or ``sample``, one per sample
    :param fisher_memory: how much memory each process may take for Fisher matrices, as ``4GB``;
        they are estimated in as many groups as it takes. None: all at once
    :param fisher_dtype: ``float32`` or ``float64``
    :param update: another name for ``weight_update``
    :raises ValueError: for a field out of its range
    """

    _eliminate = False

    global_sparsity: bool = True
    mask_type: MaskType = "unstructured"
    num_grads: int = 1024
    damp: float = field(fisher_fields.as_damp, default=1e-7)
    fisher_block_size: int = field(as_count, default=1)
    grad_sampler_kwargs: Mapping[str, Any] | None = None
    num_recomputations: int = field(as_count, default=1)
    recomputation_inter_func: str = field(one_of(("linear", "cubic")), default="linear")
    fisher_inv_device: str | None = field(fisher_fields.as_device, default=None)
    weight_update: str = field(one_of(_UPDATES), default="simultaneous")
    fisher_block_layout: str = field(fisher_fields.as_layout, default="padded")
    fisher_samples: str = field(fisher_fields.as_samples, default="batch")
    fisher_memory: str | None = field(as_memory, default=None)
    fisher_dtype: str = field(fisher_fields.as_fisher_dtype, default="float32")

    def _set_up(self) -> None:
        self._pattern()

    def _pattern(self) -> tuple[int, tuple[int, int] | None]:
        """How many weights go together; for N:M, the size of a group and what is kept of it."""
        if self._mask_type not in ("unstructured", "block4"):
            raise ValueError(
                f"mask_type of {type(self).__name__} must be unstructured or block4, found "
                f"{self._mask_type!r}; CAPruningModifier knows more"
            )
        if self._mask_type == "block4" and self.fisher_block_size % 4:
            raise ValueError(
                f"fisher_block_size of {type(self).__name__} must be a multiple of 4 with block4 "
                f"masks, found {self.fisher_block_size}"
            )
        return (4 if self._mask_type == "block4" else 1), None

    def _get_scorer(self, params: list[Parameter]) -> OBSPruningParamsScorer:
        group, nm = self._pattern()
        rule = BlockRule(
            self.fisher_block_size,
            layout=self.fisher_block_layout,
            group=group,
            nm=nm,
            eliminate=self._eliminate,
            update=self.weight_update,
        )
        return OBSPruningParamsScorer(params, type(self).__name__, rule, self._settings())

    def _settings(self) -> FisherSettings:
        device = self.fisher_inv_device
        return FisherSettings(
            num_grads=self._num_grads,
            damp=self.damp,
            dtype=fisher_fields.FISHER_DTYPES[self.fisher_dtype],
            device=None if device is None else torch.device(device),
            memory=self.fisher_memory,
        )
