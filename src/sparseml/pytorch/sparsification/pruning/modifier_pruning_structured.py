"""Gradual pruning of whole filters or channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter

from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.shrink import STRUCTURE_DIMS
from sparseml.pytorch.sparsification.fields import field, of_types, one_of
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.mask_creator_base import (
    Budget,
    PruningMaskCreator,
    Target,
)
from sparseml.pytorch.sparsification.pruning.mask_creator_structured import (
    StructuredPruningMaskCreator,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_magnitude import (
    LayerwiseGMPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.structure_groups import as_param_groups, group_indices
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.constants import ALL_PRUNABLE_TOKEN

__all__ = ["StructuredPruningModifier"]


@PyTorchModifierYAML()
class StructuredPruningModifier(LayerwiseGMPruningModifier):
    """Gradual magnitude pruning of whole filters or channels, the same ones throughout a group.

    The sparsity counts filters or channels, those that a ``LayerThinningModifier`` has removed
    since the start included. ``sparseml.pytorch.shrink.dependency_groups`` finds the groups.

    | Sample yaml:
    |   !StructuredPruningModifier
    |       param_groups: [['stem.weight', 'norm.weight', 'norm.bias']]
    |       mask_type: filter
    |       init_sparsity: 0.05
    |       final_sparsity: 0.5
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: ['stem.weight', 'norm.weight', 'norm.bias', 'head.weight']

    :param param_groups: lists of names of parameters that are masked alike, by the sum of their
        scores; each parameter that is in none is on its own
    :param mask_type: ``filter`` (dimension 0) or ``channel`` (dimension 1)
    """

    _param_groups: list[list[str]]
    _mask_type: str

    def __init__(
        self,
        init_sparsity: float | str,
        final_sparsity: float | Mapping[float, Sequence[str]],
        start_epoch: float,
        end_epoch: float,
        update_frequency: float,
        param_groups: Sequence[Sequence[str]] | None = None,
        params: str | Iterable[str] = ALL_PRUNABLE_TOKEN,
        leave_enabled: bool = True,
        inter_func: str = "cubic",
        mask_type: str = "filter",
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
            mask_type=mask_type,
        )
        self.param_groups = param_groups
        self._groups: list[list[int]] = []
        self._initial_units: list[int] = []

    param_groups = field(as_param_groups)
    mask_type = field(one_of(STRUCTURE_DIMS))

    sparsification_types = of_types(SparsificationTypes.pruning, SparsificationTypes.structured)

    def apply_structure(
        self, module: Module, epoch: float = 0.0, *args: Any, **kwargs: Any
    ) -> None:
        """Initialise; zeros are values and no structure, so nothing is pruned in one shot."""
        super().apply_structure(module, 0.0 if math.isinf(epoch) else epoch, *args, **kwargs)

    def progress_state(self) -> dict[str, Any]:
        """Adds how many filters or channels each parameter had at the start."""
        return {**super().progress_state(), "initial_units": list(self._initial_units)}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restores these."""
        super().load_progress_state(state)
        self._initial_units = list(state["initial_units"])

    def _get_mask_creator(
        self, param_names: list[str], params: list[Parameter]
    ) -> PruningMaskCreator:
        self._groups = group_indices(self._param_groups, param_names, self._final_targets)
        creator = StructuredPruningMaskCreator(self._mask_type, tensor_group_idxs=self._groups)
        self._initial_units = creator.unit_counts(params, param_names)
        return creator

    def _get_budget(self, params: list[Parameter]) -> Budget:
        return self._units_to_prune

    def _units_to_prune(self, units: Sequence[Tensor], target: Target) -> list[int]:
        # the schedule's own sparsities, as ``target`` takes what thinning removed for weights
        asked = self._applied_sparsity
        targets = asked if isinstance(asked, list) else [float(asked or 0.0)] * len(units)
        counts = [
            max(prune_count(initial, sparsity) - (initial - unit.numel()), 0)
            for initial, sparsity, unit in zip(self._initial_units, targets, units, strict=True)
        ]
        for group in self._groups:
            # measured initial sparsities may differ; a depthwise convolution has a single input
            members = [place for place in group if units[place].numel() > 1]
            shared = min((counts[place] for place in members), default=0)
            for place in group:
                counts[place] = shared if place in members else 0
        return counts
