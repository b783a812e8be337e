"""Gradual pruning of whole filters, channels, neurons and heads, and removing them."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.budgets import Budget
from sparseml.pytorch.functional.patterns import Pattern, Pool, Slice, Together
from sparseml.pytorch.functional.patterns.together import GROUP_SCORES
from sparseml.pytorch.functional.selection import lowest_mask, prune_count
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    between,
    declared_fields,
    field,
    fixed,
    new_field,
    of_types,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import Loggers, PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_magnitude import GMPruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    as_count,
    as_optional_keywords,
    out_in_shapes,
)
from sparseml.pytorch.sparsification.pruning.settings.structure_groups import (
    as_param_groups,
    as_structured_names,
    group_indices,
)
from sparseml.pytorch.sparsification.pruning.structured.found import FoundUnits
from sparseml.pytorch.sparsification.pruning.structured.goals import (
    as_final_or_goal,
    as_goal,
    names_goals,
)
from sparseml.pytorch.sparsification.pruning.structured.unit_scores import UNIT_SCORES
from sparseml.pytorch.units import STRUCTURE_DIMS
from sparseml.pytorch.units.saved import restore_structure, structure_of
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.constants import ALL_PRUNABLE_TOKEN, FROM_PARAM_TOKEN, STRUCTURED_TOKEN
from sparseml.utils.text import few, shown

_LOGGER = logging.getLogger(__name__)


@PyTorchModifierYAML()
@declared_fields()
class StructuredPruningModifier(BaseGradualPruningModifier):
    """Gradual pruning of whole filters, channels, neurons and heads, and removing them.

    With ``params: __STRUCTURED__`` all that can be removed from a model is found in it, whatever
    its layers are called: filters of convolutional networks, neurons and heads of Transformers.
    With ``remove`` the model is physically smaller from ``end_epoch`` on, and trains on as such.
    In place of a sparsity there may be a goal: ``{speedup: 2.0}`` measured on the batches that the
    model gets, ``{params: 0.5}`` or ``{flops: 0.5}``, the share to keep; then it is found out which
    layers can spare most.

    With names, as in SparseML 1.x, filters or channels are pruned by magnitude, the same ones
    throughout a group. The sparsity counts filters or channels, those that a
    ``LayerThinningModifier`` has removed since the start included.
    ``sparseml.pytorch.units.dependency_groups`` finds such groups.

    | Sample yaml:
    |   !StructuredPruningModifier
    |       params: __STRUCTURED__
    |       score: obs
    |       remove: True
    |       init_sparsity: 0.0
    |       final_sparsity: {speedup: 2.0}
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0

    :param final_sparsity: strictly between 0 and 1, a mapping from several to the parameters that
        they are for, or with ``params: __STRUCTURED__`` a goal
    :param params: names and patterns, ``__ALL__``, ``__ALL_PRUNABLE__`` or ``__STRUCTURED__``
    :param param_groups: lists of names of parameters that are masked alike; each parameter that is
        in none is on its own
    :param mask_type: ``filter`` (outputs) or ``channel`` (inputs)
    :param group_score: by what the members of a group are ranked together: the ``sum`` of their
        norms, as in SparseML 1.x; that of ``matrices`` alone, so that the scales and biases of
        normalisation have no say; or ``l2``, the norm of all together
    :param score: by what units are ranked with ``__STRUCTURED__``: ``magnitude``; ``taylor``, the
        loss of removing a unit to first order; or ``obs``, to second order, where the units that
        stay make up for it. The last two need a ``grad_sampler``
    :param remove: take pruned units out of the model at the end, with ``__STRUCTURED__``
    :param num_grads: gradients for ``taylor`` and ``obs``, batches at each update
    :param timing_seconds: how long to measure for a ``speedup``, about
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    """

    _param_groups: list[list[str]]
    _mask_type: str
    _progress: ClassVar[tuple[str, ...]] = ("_initial_units",)

    init_sparsity: float | str
    final_sparsity: float | Mapping[Any, Any] = field(as_final_or_goal)
    start_epoch: float
    end_epoch: float
    update_frequency: float
    param_groups: Sequence[Sequence[str]] | None = field(as_param_groups, default=None)
    params: str | Iterable[str] = field(as_structured_names, default=ALL_PRUNABLE_TOKEN)
    leave_enabled: bool = True
    inter_func: str = "cubic"
    mask_type: str = field(one_of(STRUCTURE_DIMS), default="filter")
    group_score: str = new_field(one_of(GROUP_SCORES), default="sum")
    score: str = new_field(one_of(UNIT_SCORES), default="magnitude")
    remove: bool = new_field(as_flag, default=False)
    num_grads: int = new_field(as_count, default=64)
    timing_seconds: float = new_field(between(above=0.0), default=30.0)
    grad_sampler_kwargs: Mapping[str, Any] | None = new_field(as_optional_keywords, default=None)
    end_comparator: int = fixed(-1)
    _order_dependence = ""

    def _set_up(self) -> None:
        self._initial_units: list[int] = []
        self._found: FoundUnits | None = None
        self._finished = self._removed = False
        self._reached: float | None = None
        self._check_fields()

    global_sparsity = field(as_flag, serializable=False, doc="Always False.")

    sparsification_types = of_types(SparsificationTypes.pruning, SparsificationTypes.structured)

    def apply_structure(
        self, module: Module, epoch: float = 0.0, *args: Any, **kwargs: Any
    ) -> None:
        """Initialise; zeros are no structure, and which of ``__STRUCTURED__`` went is not known."""
        if not self.structured:
            super().apply_structure(module, 0.0 if math.isinf(epoch) else epoch, *args, **kwargs)

    @property
    def structured(self) -> bool:
        """Whether the units are found in the model, by ``params: __STRUCTURED__``."""
        return self._params == STRUCTURED_TOKEN

    @property
    def removed(self) -> bool:
        """Whether the model has lost its pruned units."""
        return self._removed

    @property
    def reached(self) -> str:
        """What a goal asked and what the model is after the removal, in words; "" before."""
        goal = as_goal(self._final_sparsity)
        if goal is None or self._reached is None:
            return ""
        how = "measured" if goal.kind == "speedup" else "counted"
        return f"asked {goal.text()}, {how} {goal.text(self._reached)}"

    @property
    def aim(self) -> str:
        """What stands for a sparsity: a goal, and after the removal what was reached; or ""."""
        if self._removed:
            return self.reached or "what was pruned is removed"
        goal = as_goal(self._final_sparsity)
        return "" if goal is None else f"at the end {goal.text()}"

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find what is pruned; at an infinite epoch also prune it, in one shot, and remove it.

        :param kwargs: ``example_inputs``, a batch for a model that does not say what it takes, and
            to take times on; by default the first of the ``grad_sampler``
        """
        self._found, self._finished, self._removed = None, False, False
        if self.structured:
            self._found = FoundUnits(module, self, kwargs)
        super().initialize(module, epoch, loggers, **kwargs)
        if math.isinf(epoch):
            self._take_out(module)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Update the masks; after the last time take out what they prune."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self._finished:
            self._take_out(module, optimizer)

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Take out what is pruned, unless that has happened.

        :param kwargs: ``optimizer`` whose state follows, if it is to be used any more
        """
        if module is not None and self._initialized and self._enabled:
            self._take_out(module, kwargs.get("optimizer"))
        super().finalize(module, reset_loggers, **kwargs)

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> Any:
        """Return the sparsity of each parameter; with ``__STRUCTURED__`` one for all units.

        With a goal that is the part of the way to it.
        """
        if not self.structured:
            return super().get_applied_sparsity_for_epoch(epoch, steps_per_epoch)
        final = 1.0 if as_goal(self._final_sparsity) else float(self._final_sparsity)  # type: ignore[arg-type]
        return self._scheduled(epoch, [final])[0]

    def sparsities_at(self, module: Module, epoch: float) -> list[float | None]:
        """Return the sparsity of each parameter; with a goal none before it is decided."""
        if not self.structured:
            return super().sparsities_at(module, epoch)
        return self._units_of(module).sparsities(self.get_applied_sparsity_for_epoch(epoch, 1))

    @property
    def applied_sparsity(self) -> Target | None:
        """The sparsity asked for at the last update, None before the first."""
        if self._found is None or self._applied_sparsity is None:
            return self._applied_sparsity
        asked = self._found.sparsities(cast(float, self._applied_sparsity))
        return None if None in asked else [float(one or 0.0) for one in asked]

    def progress_state(self) -> dict[str, Any]:
        """Return how far this has come, with the sizes of the model if units are gone."""
        state = super().progress_state()
        if not self.structured:  # whose state stays that of SparseML 1.x
            return state
        lost = structure_of(self._found.model) if self._found and self._removed else {}
        return {**state, **lost, "removed": self._removed, "reached": self._reached}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`progress_state` returned."""
        super().load_progress_state(state)
        self._removed = bool(state.get("removed", False))
        self._reached = state.get("reached")

    def load_structure_state(self, module: Module, state: Mapping[str, Any]) -> None:
        """Give the model the sizes that it had; the weights of its layers bring their own."""
        super().load_structure_state(module, state)
        if state.get("removed"):
            restore_structure(module, state)

    def _check_fields(self) -> None:
        """:raises ValueError: for fields that do not go together, naming them"""
        owner, goal = type(self).__name__, as_goal(self._final_sparsity)
        if not self.structured:
            given = {"remove": self.remove, "score": self.score != "magnitude", "a goal": goal}
            for name, value in given.items():
                if value:
                    raise ValueError(
                        f"{name} of {owner} needs params: {STRUCTURED_TOKEN}, found "
                        f"{shown(self._params)}"
                    )
        elif self._param_groups:
            raise ValueError(
                f"param_groups of {owner} must be empty with params: {STRUCTURED_TOKEN}, which "
                f"finds them, found {len(self._param_groups)}"
            )
        elif self.init_sparsity == FROM_PARAM_TOKEN:
            raise ValueError(
                f"init_sparsity of {owner} must be a number with params: {STRUCTURED_TOKEN}, found "
                f"{self.init_sparsity}"
            )

    @staticmethod
    def _is_goal(final_sparsity: Any) -> bool:
        return names_goals(final_sparsity)

    def _units_of(self, module: Module) -> FoundUnits:
        return FoundUnits(module, self, {}) if self._found is None else self._found

    def _choose(self, module: Module) -> tuple[list[NamedLayerParam], list[float]]:
        if not self.structured:
            return super()._choose(module)
        return self._units_of(module).selected, []

    def _get_method(self) -> Method:
        return super()._get_method() if self._found is None else self._found.method

    def needs(self) -> dict[str, str]:
        """Return the extras of :meth:`initialize` that are asked for → what happens without."""
        samples = self.structured and self.score != "magnitude"
        return {"grad_sampler": "it refuses to prune"} if samples else {}

    def problem(self, module: Module) -> Problem:
        """Return what is to be decided now."""
        return super().problem(unwrap_module(module, root=True) if self.structured else module)

    def _end_pruning(self) -> None:
        super()._end_pruning()
        self._finished = True

    def _take_out(self, module: Module, optimizer: Any = None) -> None:
        """Take out what is pruned, once."""
        if self._found is None or self._removed or not self.remove or not self._masks.enabled:
            return
        self._reached = self._found.remove(module, self.masks, optimizer)
        self._removed = True
        if self.reached:
            _LOGGER.info("%s: %s", type(self).__name__, self.reached)

    def _get_pattern(self, selected: Sequence[NamedLayerParam]) -> Pattern:
        if self._found is not None:
            return self._found.pattern
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
            named = [few(names[place] for place in group) for group in groups]
            raise ValueError(f"{error}; the groups are {few(named, between='; ')}") from error
        return pattern

    def _check_targets(
        self, pattern: Pattern, selected: Sequence[NamedLayerParam], finals: Sequence[float]
    ) -> None:
        """:raises ValueError: for groups whose members shall end with different sparsities"""
        for group in pattern.groups if isinstance(pattern, Together) else ():
            wanted = {finals[place] for place in group}
            if len(wanted) > 1:
                raise ValueError(
                    "the parameters of one group need one final sparsity, found "
                    f"{few(sorted(wanted))} for {few(selected[place].name for place in group)}"
                )

    def _prepare(self, selected: Sequence[NamedLayerParam]) -> None:
        super()._prepare(selected)
        if self._found is not None:
            self._initial_units = self._found.initial
        else:
            self._initial_units = _units(cast(Together, self._pattern), selected)

    def _get_budget(self) -> Budget:
        if self._found is not None:
            return self._found.budget(self._initial_units)
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
