"""Gradual pruning of whole filters or channels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.budgets import Budget
from sparseml.pytorch.functional.patterns import Pattern, Pool, Slice, Together
from sparseml.pytorch.functional.patterns.together import GROUP_SCORES
from sparseml.pytorch.functional.selection import lowest_mask, prune_count
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    declared_fields,
    field,
    fixed,
    new_field,
    of_types,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_magnitude import GMPruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import out_in_shapes
from sparseml.pytorch.sparsification.pruning.settings.structure_groups import (
    as_param_groups,
    group_indices,
)
from sparseml.pytorch.units import STRUCTURE_DIMS
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.constants import ALL_PRUNABLE_TOKEN


@PyTorchModifierYAML()
@declared_fields()
class StructuredPruningModifier(BaseGradualPruningModifier):
    """Gradual magnitude pruning of whole filters or channels, the same ones throughout a group.

    The sparsity counts filters or channels, those that a ``LayerThinningModifier`` has removed
    since the start included. ``sparseml.pytorch.units.dependency_groups`` finds the groups.

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

    :param param_groups: lists of names of parameters that are masked alike; each parameter that is
        in none is on its own
    :param mask_type: ``filter`` (outputs) or ``channel`` (inputs)
    :param group_score: by what the members of a group are ranked together: the ``sum`` of their
        norms, as in SparseML 1.x; that of ``matrices`` alone, so that the scales and biases of
        normalisation have no say; or ``l2``, the norm of all together
    """

    _param_groups: list[list[str]]
    _mask_type: str
    _progress: ClassVar[tuple[str, ...]] = ("_initial_units",)

    init_sparsity: float | str
    final_sparsity: float | Mapping[float, Sequence[str]]
    start_epoch: float
    end_epoch: float
    update_frequency: float
    param_groups: Sequence[Sequence[str]] | None = field(as_param_groups, default=None)
    params: str | Iterable[str] = ALL_PRUNABLE_TOKEN
    leave_enabled: bool = True
    inter_func: str = "cubic"
    mask_type: str = field(one_of(STRUCTURE_DIMS), default="filter")
    group_score: str = new_field(one_of(GROUP_SCORES), default="sum")
    end_comparator: int = fixed(-1)
    _order_dependence = ""

    def _set_up(self) -> None:
        self._initial_units: list[int] = []

    global_sparsity = field(as_flag, serializable=False, doc="Always False.")

    sparsification_types = of_types(SparsificationTypes.pruning, SparsificationTypes.structured)

    def apply_structure(
        self, module: Module, epoch: float = 0.0, *args: Any, **kwargs: Any
    ) -> None:
        """Initialise; zeros are values and no structure, so nothing is pruned in one shot."""
        super().apply_structure(module, 0.0 if math.isinf(epoch) else epoch, *args, **kwargs)

    def _get_pattern(self, selected: Sequence[NamedLayerParam]) -> Together:
        names = [one.name for one in selected]
        groups = group_indices(self._param_groups, names)
        pattern = Together(
            Slice(STRUCTURE_DIMS[self._mask_type], "l2"), groups, str(self.group_score)
        )
        for one, shape in zip(selected, out_in_shapes(selected), strict=True):
            if len(shape) <= pattern.slices.dim:
                raise ValueError(f"{one.name} of shape {tuple(shape)} has no {self._mask_type}s")
        try:
            _units(pattern, selected)
        except ValueError as error:
            named = [[names[place] for place in group] for group in groups]
            raise ValueError(f"{error}; the groups are {named}") from error
        return pattern

    def _check_targets(
        self, pattern: Pattern, selected: Sequence[NamedLayerParam], finals: Sequence[float]
    ) -> None:
        """:raises ValueError: for groups whose members shall end with different sparsities"""
        assert isinstance(pattern, Together)
        for group in pattern.groups:
            wanted = {finals[place] for place in group}
            if len(wanted) > 1:
                raise ValueError(
                    f"the parameters of one group need one final sparsity, found {sorted(wanted)} "
                    f"for {[selected[place].name for place in group]}"
                )

    def _prepare(self, selected: Sequence[NamedLayerParam]) -> None:
        super()._prepare(selected)
        assert isinstance(self._pattern, Together)
        self._initial_units = _units(self._pattern, selected)

    def _get_budget(self) -> Budget:
        return _OfInitialUnits(tuple(self._initial_units))

    def _remaining(self, target: Any, sizes: Sequence[int]) -> Any:
        return target  # the budget knows how many units there were


# SparseML 1.x derives it from GMPruningModifier; isinstance goes on saying so
GMPruningModifier.register(StructuredPruningModifier)


@dataclass(frozen=True)
class _OfInitialUnits(Budget):
    """Sparsities of the units that there were, of which some may be removed by now.

    :param initial: how many units each tensor had
    """

    initial: tuple[int, ...]

    def check(self, pools: Sequence[Pool], target: float | Sequence[float]) -> None:
        """Accept any target: there are units enough for all."""

    def choose(
        self, pools: Sequence[Pool], target: float | Sequence[float], spread_ties: bool = False
    ) -> list[Tensor]:
        """Prune the lowest units of each pool."""
        return [lowest_mask(pool.scores, self._count(pool, target)) for pool in pools]

    def _count(self, pool: Pool, target: float | Sequence[float]) -> int:
        # sparsities measured at the start may differ within a group
        each = [target] * len(self.initial) if isinstance(target, float) else list(target)
        counts = [
            prune_count(self.initial[place], each[place]) - (self.initial[place] - pool.units)
            for place in pool.members
        ]
        return max(min(counts), 0) if pool.units else 0


def _units(pattern: Together, selected: Sequence[NamedLayerParam]) -> list[int]:
    """How many units each tensor has; in a group, that is what its smallest has."""
    units = [0] * len(selected)
    for pool in pattern.blank(out_in_shapes(selected)):
        for place in pool.members:
            units[place] = pool.units
    return units
