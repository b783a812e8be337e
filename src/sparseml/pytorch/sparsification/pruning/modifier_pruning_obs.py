"""Gradual pruning by the Optimal Brain Surgeon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from sparseml.pytorch.sparsification.fields import field, one_of
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning import fisher_fields
from sparseml.pytorch.sparsification.pruning.fields import as_count
from sparseml.pytorch.sparsification.pruning.fisher_passes import FisherSettings
from sparseml.pytorch.sparsification.pruning.mask_creator import MaskType
from sparseml.pytorch.sparsification.pruning.modifier_pruning_sampled import (
    SampledPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.scorer_obs import BlockRule, OBSPruningParamsScorer

__all__ = ["OBSPruningModifier"]

_UPDATES = ("simultaneous", "joint")


@PyTorchModifierYAML()
class OBSPruningModifier(SampledPruningModifier):
    """Prunes what costs least by a block Fisher matrix, and lets the other weights make up for it.

    Kurtic et al., "The Optimal BERT Surgeon" (2022).

    | Sample yaml:
    |   !OBSPruningModifier
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: __ALL_PRUNABLE__
    |       num_grads: 1024
    |       damp: 1e-7
    |       fisher_block_size: 50

    :param params: names, ``re:`` patterns, ``__ALL__`` or ``__ALL_PRUNABLE__``
    :param init_sparsity: sparsity at the start, or ``__FROM_PARAM__``
    :param final_sparsity: sparsity at the end, or several with the parameters they are for
    :param update_frequency: epochs between updates, -1 for every step
    :param leave_enabled: keep the masks in force after the end
    :param inter_func: ``linear``, ``cubic`` or ``inverse_cubic``
    :param global_sparsity: rank the weights of all parameters together
    :param mask_type: ``unstructured`` or ``block4``
    :param num_grads: gradients to sample for each estimate, on all ranks together
    :param damp: dampening, absolute
    :param fisher_block_size: weights per block
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
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
    _damp: float
    _fisher_block_size: int

    def __init__(
        self,
        params: str | Iterable[str],
        init_sparsity: float | str,
        final_sparsity: float | Mapping[float, Sequence[str]],
        start_epoch: float,
        end_epoch: float,
        update_frequency: float,
        leave_enabled: bool = True,
        inter_func: str = "cubic",
        global_sparsity: bool = True,
        mask_type: MaskType = "unstructured",
        num_grads: int = 1024,
        damp: float = 1e-7,
        fisher_block_size: int = 1,
        grad_sampler_kwargs: Mapping[str, Any] | None = None,
        num_recomputations: int = 1,
        recomputation_inter_func: str = "linear",
        fisher_inv_device: str | None = None,
        weight_update: str = "simultaneous",
        fisher_block_layout: str = "padded",
        fisher_samples: str = "batch",
        fisher_memory: str | None = None,
        fisher_dtype: str = "float32",
        update: str | None = None,
    ) -> None:
        super().__init__(
            params,
            init_sparsity,
            final_sparsity,
            start_epoch,
            end_epoch,
            update_frequency,
            leave_enabled=leave_enabled,
            inter_func=inter_func,
            global_sparsity=global_sparsity,
            mask_type=mask_type,
            num_grads=num_grads,
            grad_sampler_kwargs=grad_sampler_kwargs,
        )
        self.damp = damp
        self.fisher_block_size = fisher_block_size
        self.num_recomputations = num_recomputations
        self.recomputation_inter_func = recomputation_inter_func
        self.fisher_inv_device = fisher_inv_device
        self.weight_update = weight_update if update is None else update
        self.fisher_block_layout = fisher_block_layout
        self.fisher_samples = fisher_samples
        self.fisher_memory = fisher_memory
        self.fisher_dtype = fisher_dtype
        self._pattern()

    damp = fisher_fields.damp_field()
    fisher_block_size = fisher_fields.block_size_field()
    num_recomputations = field("num_recomputations", as_count, "Steps for each update.")
    recomputation_inter_func = field(
        "recomputation_inter_func", one_of(("linear", "cubic")), "The curve between them."
    )
    fisher_inv_device = fisher_fields.device_field()
    weight_update = field("weight_update", one_of(_UPDATES), "How other weights make up.")
    fisher_block_layout = fisher_fields.layout_field()
    fisher_samples = fisher_fields.samples_field()
    fisher_memory = fisher_fields.memory_field()
    fisher_dtype = fisher_fields.dtype_field()

    def _pattern(self) -> tuple[int, tuple[int, int] | None]:
        """How many weights go together; for N:M, the size of a group and what is kept of it."""
        if self._mask_type not in ("unstructured", "block4"):
            raise ValueError(
                f"mask_type of {type(self).__name__} must be unstructured or block4, found "
                f"{self._mask_type!r}; CAPruningModifier knows more"
            )
        if self._mask_type == "block4" and self._fisher_block_size % 4:
            raise ValueError(
                f"fisher_block_size of {type(self).__name__} must be a multiple of 4 with block4 "
                f"masks, found {self._fisher_block_size}"
            )
        return (4 if self._mask_type == "block4" else 1), None

    def _get_scorer(self, params: list[Parameter]) -> OBSPruningParamsScorer:
        group, nm = self._pattern()
        rule = BlockRule(
            self._fisher_block_size,
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
            damp=self._damp,
            dtype=fisher_fields.FISHER_DTYPES[self.fisher_dtype],
            device=None if device is None else torch.device(device),
            memory=self.fisher_memory,
        )
