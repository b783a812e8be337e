"""Gradual correlation-aware pruning with one small Fisher matrix per weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from sparseml.pytorch.sparsification.fields import field, one_of
from sparseml.pytorch.sparsification.modifier import ModifierProp, PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning import fisher_fields
from sparseml.pytorch.sparsification.pruning.fisher_passes import FisherSettings
from sparseml.pytorch.sparsification.pruning.modifier_pruning_sampled import (
    SampledPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.scorer_fast_cap import FastCAPruningParamsScorer

__all__ = ["FastCAPruningModifier"]


@PyTorchModifierYAML()
class FastCAPruningModifier(SampledPruningModifier):
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

    :param params: names, ``re:`` patterns, ``__ALL__`` or ``__ALL_PRUNABLE__``
    :param init_sparsity: sparsity at the start, or ``__FROM_PARAM__``
    :param final_sparsity: sparsity at the end, or several with the parameters they are for
    :param update_frequency: epochs between updates, -1 for every step
    :param leave_enabled: keep the masks in force after the end
    :param inter_func: ``linear``, ``cubic`` or ``inverse_cubic``
    :param mask_type: ``unstructured``
    :param num_grads: gradients to sample for each update, on all ranks together
    :param damp: dampening, relative to the mean diagonal of the Fisher matrix
    :param fisher_block_size: columns of the matrix that each weight is seen as
    :param fisher_inv_device: where Fisher matrices live; None: with each weight
    :param block_size: columns that share a threshold and an update; None: all
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param fisher_samples: ``batch``, one gradient per batch, or ``sample``, one per sample
    :param fisher_dtype: ``float32`` or ``float64``
    :param global_sparsity: always False; every parameter gets the sparsity asked for
    :raises ValueError: for a field out of its range
    """

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
        mask_type: str = "unstructured",
        num_grads: int = 1024,
        damp: float = 1e-7,
        fisher_block_size: int = 50,
        fisher_inv_device: str | None = None,
        block_size: int | None = None,
        grad_sampler_kwargs: Mapping[str, Any] | None = None,
        fisher_samples: str = "batch",
        fisher_dtype: str = "float32",
        global_sparsity: bool = False,
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
            global_sparsity=False,
            mask_type=mask_type,
            num_grads=num_grads,
            grad_sampler_kwargs=grad_sampler_kwargs,
        )
        self.damp = damp
        self.fisher_block_size = fisher_block_size
        self.fisher_inv_device = fisher_inv_device
        self.block_size = block_size
        self.fisher_samples = fisher_samples
        self.fisher_dtype = fisher_dtype

    mask_type = field("mask_type", one_of(("unstructured",)), "What is pruned: single weights.")
    damp = fisher_fields.damp_field()
    fisher_block_size = fisher_fields.block_size_field()
    fisher_inv_device = fisher_fields.device_field()
    block_size = field("block_size", fisher_fields.as_optional_count, "Columns per update.")
    fisher_samples = fisher_fields.samples_field()
    fisher_dtype = fisher_fields.dtype_field()

    @ModifierProp(serializable=False)
    def global_sparsity(self) -> bool:
        """False."""
        return False

    def _get_scorer(self, params: list[Parameter]) -> FastCAPruningParamsScorer:
        device = self.fisher_inv_device
        settings = FisherSettings(
            num_grads=self._num_grads,
            damp=self._damp,
            dtype=fisher_fields.FISHER_DTYPES[self.fisher_dtype],
            device=None if device is None else torch.device(device),
        )
        return FastCAPruningParamsScorer(
            params, type(self).__name__, self._fisher_block_size, self.block_size, settings
        )
