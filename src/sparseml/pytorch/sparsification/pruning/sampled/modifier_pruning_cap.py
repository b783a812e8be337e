"""Gradual correlation-aware pruning."""

from __future__ import annotations

from typing import Any

from sparseml.pytorch.functional.patterns import parse_pattern
from sparseml.pytorch.sparsification.fields import declared_fields, field, new_field
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.obs import OptimalBrainSurgeon
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.settings import fisher_fields
from sparseml.pytorch.sparsification.pruning.settings.fields import as_count

__all__ = ["CAPruningModifier"]


def _as_int(name: str, value: Any) -> int:
    return int(value)


@PyTorchModifierYAML()
@declared_fields(GradualFields, fisher_fields.FisherFields, synonyms={"update": "weight_update"})
class CAPruningModifier(BaseGradualPruningModifier):
    """Removes weights one after another, always the one that costs least after those before it.

    Kuznedelev et al., "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models"
    (2023). The weights that stay make up for all that went together (``weight_update: joint``).

    | Sample yaml:
    |   !CAPruningModifier
    |       init_sparsity: 0.4
    |       final_sparsity: 0.9
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 2.0
    |       params: ['re:.*(attn.(qkv|proj)|mlp.fc\\d+).weight']
    |       num_grads: 4096
    |       damp: auto
    |       fisher_block_size: 192

    :param fisher_block_size: weights per block; it and ``damp`` have their old defaults for old
        recipes, the ready recipes have 256 for ResNets and 192 for ViTs, with ``damp: auto``
    :param weight_update: ``joint``, the best one for all that go, or ``simultaneous``, as SparseML
        1.x adds up the updates of single weights
    :param mask_type: ``unstructured``, runs of inputs (``block4``, ``1x8``, ``[1, 8]``) or ``N:M``,
        which keeps N of M (the files of the CAP release say how many of M are *pruned*)
    :param blocks_in_parallel: accepted from recipes of the CAP release; nothing depends on it
    :param traces_backup_dir: a folder for inverse Fisher matrices that ``fisher_memory`` has no
        room for. With ``global_sparsity`` they are estimated twice without it
    """

    fisher_block_size: int = field(as_count, default=50)
    weight_update: str = new_field(fisher_fields.as_weight_update, default="joint")
    blocks_in_parallel: int = field(_as_int, default=-1)
    traces_backup_dir: str | None = field(fisher_fields.as_optional_text, default=None)
    _order_dependence = ""

    def _set_up(self) -> None:
        try:
            fisher_fields.block_rule(self, eliminate=True).fitted(parse_pattern(self._mask_type))
        except ValueError as error:
            raise ValueError(
                f"mask_type of {type(self).__name__} must be unstructured, block4, 1xk, [1, k] or "
                f"N:M (N kept of M), found {self._mask_type!r}: {error}"
            ) from None

    def _get_method(self) -> OptimalBrainSurgeon:
        rule, settings = fisher_fields.block_rule(self, True), fisher_fields.fisher_settings(self)
        return OptimalBrainSurgeon(type(self).__name__, rule, settings)
