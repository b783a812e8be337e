"""Pruning modifiers whose sparsity grows along a curve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch.nn import Module

from sparseml.pytorch.functional.patterns import Pattern
from sparseml.pytorch.sparsification.fields import declared_fields, field, one_of
from sparseml.pytorch.sparsification.modifier import ModifierProp
from sparseml.pytorch.sparsification.param_selection import as_entries
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    as_final_sparsity,
    as_initial_sparsity,
    require_reachable,
)
from sparseml.pytorch.sparsification.pruning.settings.limits import require_sensible_limits
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value
from sparseml.pytorch.utils.tensors.stats import tensor_list_sparsity, tensor_sparsity
from sparseml.utils.constants import ALL_PRUNABLE_TOKEN, FROM_PARAM_TOKEN
from sparseml.utils.interpolation import SPARSITY_CURVES, scheduled_sparsity
from sparseml.utils.text import shown


@declared_fields()
class GradualFields:
    """What the arguments of a gradual pruning modifier begin with.

    To be given to ``declared_fields``, as in ``@declared_fields(GradualFields)``.

    :param params: names, ``re:`` patterns, ``__ALL__`` or ``__ALL_PRUNABLE__``
    :param init_sparsity: sparsity at the start, or ``__FROM_PARAM__``, what each parameter has
    :param final_sparsity: sparsity at the end, or several with the parameters they are for
    :param update_frequency: epochs between updates, -1 for every step
    :param leave_enabled: keep the masks in force after the end
    :param inter_func: ``linear``, ``cubic``, ``inverse_cubic``, ``exp``, ``cos`` or ``cube``
    """

    init_sparsity: float | str
    final_sparsity: float | Mapping[float, Sequence[str]]
    start_epoch: float
    end_epoch: float
    update_frequency: float
    params: str | Iterable[str]
    leave_enabled: bool = True
    inter_func: str = "cubic"


def _get_init_sparsity(modifier: Any) -> float | str:
    return FROM_PARAM_TOKEN if modifier._init_from_param else modifier._init_sparsity


def _set_init_sparsity(modifier: Any, value: float | str) -> None:
    modifier._init_sparsity = as_initial_sparsity("init_sparsity", value)
    modifier._init_from_param = value == FROM_PARAM_TOKEN


class BaseGradualPruningModifier(BasePruningModifier):
    """Prunes from an initial to a final sparsity while it is active.

    Exactly ``init_sparsity`` is asked for at the start and exactly ``final_sparsity`` from the end
    on; in one shot, ``final_sparsity``.

    :param params: as in the base class; empty means ``__ALL_PRUNABLE__``, and must be empty if
        ``final_sparsity`` says which parameters it is for
    :param init_sparsity: in [0, 1], or ``__FROM_PARAM__``: the sparsity that each parameter has at
        initialisation
    :param final_sparsity: strictly between 0 and 1, or for several a mapping from each to the
        names and patterns of its parameters (the first that matches holds; recipes are read in
        ascending order)
    :param inter_func: ``linear``, ``cubic``, ``inverse_cubic``, ``exp``, ``cos`` or ``cube``
    :raises TypeError: for a sparsity that is not written as a float
    :raises ValueError: for a sparsity outside its range, an unknown ``inter_func``, an
        ``update_frequency`` of 0, and for ``params`` beside a mapping
    """

    _init_sparsity: float | str | list[float]
    _init_from_param: bool
    _inter_func: str
    _stops_short = False  # whether an N:M pattern may end with groups that are left dense
    _final_sparsity: float | Mapping[float, Sequence[str]]
    _progress: ClassVar[tuple[str, ...]] = ("_init_sparsity", "_overall_init_sparsity")

    def __init__(
        self,
        params: str | Iterable[str],
        init_sparsity: float | str,
        final_sparsity: float | Mapping[float, Sequence[str]],
        inter_func: str = "cubic",
        start_epoch: float = -1.0,
        min_start: float = -1.0,
        end_epoch: float = -1.0,
        min_end: float = -1.0,
        end_comparator: int | None = 0,
        update_frequency: float = -1.0,
        min_frequency: float = -1.0,
        global_sparsity: bool = False,
        allow_reintroduction: bool = False,
        parent_class_kwarg_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            params,
            start_epoch,
            min_start,
            end_epoch,
            min_end,
            end_comparator,
            update_frequency,
            min_frequency,
            global_sparsity,
            allow_reintroduction,
            parent_class_kwarg_names=parent_class_kwarg_names,
            **kwargs,
        )
        by_names = isinstance(final_sparsity, Mapping) and not self._is_goal(final_sparsity)
        if by_names and self._params:
            raise ValueError(
                f"{self._describe('params')} must be empty ([]) when final_sparsity says which "
                f"parameters it is for, found {shown(self._params)}"
            )
        self.init_sparsity = init_sparsity
        self.final_sparsity = final_sparsity
        self.inter_func = inter_func
        require_sensible_limits(self, "final_sparsity")
        self._final_targets: list[float] = []
        self._overall_init_sparsity = 0.0

    init_sparsity: Any = ModifierProp(
        func_get=_get_init_sparsity,
        func_set=_set_init_sparsity,
        doc="Sparsity at the start, or the token for each parameter's own.",
    )
    final_sparsity = field(as_final_sparsity)
    inter_func = field(one_of(SPARSITY_CURVES))

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> list[float]:
        """The sparsity of each parameter at ``epoch``.

        Before initialisation, when the parameters are not known, there is one value for each final
        sparsity, and ``__FROM_PARAM__`` counts as 0.
        """
        return self._scheduled(epoch, self._final_targets or _sparsities(self._final_sparsity))

    def selects(self, module: Module) -> list[NamedLayerParam]:
        """Return the parameters that would be pruned, checked as initialising checks them."""
        selected, finals = self._choose(module)
        self._check_targets(self._get_pattern(selected), selected, finals)
        return selected

    def sparsities_at(self, module: Module, epoch: float) -> list[float | None]:
        """Return the sparsity that each of :meth:`selects` shall have at ``epoch``."""
        return list(self._scheduled(epoch, self._choose(module)[1]))

    def _scheduled(self, epoch: float, finals: Sequence[float]) -> list[float]:
        start, end, curve = self._start_epoch, self._end_epoch, self._inter_func
        initial = self._init_sparsity
        if not isinstance(initial, float):
            initial = self._initial()
        initials = initial if isinstance(initial, list) else [initial] * len(finals)
        return [
            scheduled_sparsity(epoch, start, end, first, final, curve)
            for first, final in zip(initials, finals, strict=True)
        ]

    def _initial(self) -> float | list[float]:
        if isinstance(self._init_sparsity, list) and self._global_sparsity:
            return self._overall_init_sparsity  # ranking all weights together knows one target only
        return 0.0 if isinstance(self._init_sparsity, str) else self._init_sparsity

    @staticmethod
    def _is_goal(final_sparsity: Any) -> bool:
        """Whether a final sparsity is something else to lead to."""
        return False

    def _describe(self, name: str) -> str:
        return f"{name} of {type(self).__name__}"

    def selecting_entries(self) -> list[str]:
        """Return the tokens, names and patterns by which parameters are selected, in order."""
        if isinstance(self._final_sparsity, Mapping) and not self._params:
            groups = self._final_sparsity.values()
            return [entry for entries in groups for entry in as_entries(entries)]
        return as_entries(self._params or ALL_PRUNABLE_TOKEN)

    def _create_named_layers_and_params(self, module: Module) -> list[NamedLayerParam]:
        selected, self._final_targets = self._choose(module)
        return selected

    def _choose(self, module: Module) -> tuple[list[NamedLayerParam], list[float]]:
        """The parameters, and the final sparsity of each."""
        final = self._final_sparsity
        if not isinstance(final, Mapping):
            selected = self.select(module, self._params or ALL_PRUNABLE_TOKEN)
            return selected, [float(final)] * len(selected)
        if self._global_sparsity:
            raise ValueError(
                f"{self._describe('final_sparsity')} must be one number, as global_sparsity ranks "
                f"the weights of all parameters together; found {shown(final)}"
            )
        chosen: dict[int, tuple[NamedLayerParam, float]] = {}
        for sparsity, entries in final.items():
            for found in self.select(module, as_entries(entries), strict=True):
                chosen.setdefault(id(found.param), (found, float(sparsity)))
        return [found for found, _ in chosen.values()], [one for _, one in chosen.values()]

    def _goal(self) -> float:
        return self._final_targets[0] if self._final_targets else 1.0

    def _prepare(self, selected: Sequence[NamedLayerParam]) -> None:
        super()._prepare(selected)
        if self._init_from_param:
            values = [full_value(one.param) for one in selected]
            self._init_sparsity = [tensor_sparsity(value).item() for value in values]
            self._overall_init_sparsity = tensor_list_sparsity(values)
        self._check_targets(self._pattern, selected, self._final_targets)

    def _check_targets(
        self, pattern: Pattern, selected: Sequence[NamedLayerParam], finals: Sequence[float]
    ) -> None:
        """:raises ValueError: for sparsities that the pattern cannot have"""
        for final in finals:
            require_reachable(
                pattern, final, self._describe("final_sparsity"), at_most=self._stops_short
            )
        initial = self._initial()
        highest = max(initial, default=0.0) if isinstance(initial, list) else initial
        require_reachable(pattern, highest, self._describe("init_sparsity"), at_most=True)


def _sparsities(final_sparsity: float | Mapping[float, Sequence[str]]) -> list[float]:
    return (
        [float(s) for s in final_sparsity]
        if isinstance(final_sparsity, Mapping)
        else [final_sparsity]
    )
