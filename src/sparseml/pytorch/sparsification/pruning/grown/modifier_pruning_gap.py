"""Scheduled grow-and-prune: one part of a network is dense at a time, the others are sparse."""

from __future__ import annotations

import functools
import logging
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.optim.schedule import Schedule, epoch_of_step
from sparseml.pytorch.functional.partitions import Partition
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_given,
    declared_fields,
    field,
    fixed,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import Loggers, PyTorchModifierYAML
from sparseml.pytorch.sparsification.param_selection import as_entries
from sparseml.pytorch.sparsification.pruning.grown.fields import (
    DEFAULT_COUNT,
    as_finals,
    as_partitions,
    as_whole,
    require_sense,
)
from sparseml.pytorch.sparsification.pruning.grown.layout import Layout, embedded, lay_out
from sparseml.pytorch.sparsification.pruning.masks.optimizer_state import forget
from sparseml.pytorch.sparsification.pruning.methods.elementwise import Lot
from sparseml.pytorch.sparsification.pruning.methods.method import Problem
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    MaskType,
    as_count,
    optional,
    require_reachable,
)
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.constants import ALL_PRUNABLE_TOKEN, ALL_TOKEN

_LOGGER = logging.getLogger(__name__)
_TOKENS = (ALL_TOKEN, ALL_PRUNABLE_TOKEN)
_EARLY = 1e-9
"""Epochs by which a boundary may come early, so that rounding never makes it a step late."""


@PyTorchModifierYAML()
@declared_fields()
class GaPPruningModifier(BasePruningModifier):
    """Grows one partition at a time and prunes it again: Ma et al., "Grow-and-Prune" (2022).

    The parameters are divided into partitions. In each step, of ``update_frequency`` epochs, one
    of them is dense and all others are sparse under masks that do not change. At the end of a step
    its partition is pruned by magnitude, and the next one grows: what was pruned there starts from
    zero. When the last step is over all is sparse, and the masks stay as they are.

    | Sample yaml:
    |   !GaPPruningModifier
    |       params: __ALL_PRUNABLE__
    |       final_sparsity: 0.9
    |       num_steps: 6
    |       start_epoch: 0.0
    |       update_frequency: 5.0
    |       num_partitions: 3

    :param final_sparsity: strictly between 0 and 1, or several with the parameters that they are
        for; 0.0 leaves parameters dense that are in a partition all the same
    :param num_steps: how many times something grows; 0 prunes everything at the start
    :param start_epoch: the start of the first step
    :param update_frequency: epochs in a step
    :param end_epoch: the end of the last step; it follows from the other fields
    :param num_partitions: how many there are, where ``partitions`` does not say it
    :param partitions: for each the names and ``re:`` patterns of its parameters; every one of
        ``params`` must be in just one. By default neighbours are put together
    :param partition_by: what those shall have about as many of: ``numel`` (weights) or ``tensors``
    :param partition_type: ``cyclic``, one after the other; ``random``, drawn by lot among the
        parameters not grown in the last step; or ``fixed``, ``grown_partition`` alone
    :param grown_partition: with ``fixed``, the partition of this worker, counted from 0
    :param seed: of what is drawn by lot
    :param initial_mask: what goes when the first step begins: by ``magnitude``, or at ``random``
    :param prune_grown_at_start: also prune, once, what grows in the first step
    :param reset_optimizer_state: what the optimizer forgets whenever masks change: ``all``, what
        it knows of the parameters ``grown``, or ``none``
    :param global_sparsity: rank the weights of all parameters that are pruned at a time together
    :param mask_type: ``unstructured``, ``block4``, ``N:M``, ``filter``, ``channel``, ``RxC``, or
        ``[out, in]``
    :param mask_gradients: mask gradients as well as weights, so that momentum fades away
    :param first_step: of the whole plan, how many steps earlier runs have taken
    :param final_prune: prune what has grown last when its step ends; not with ``fixed``
    :raises ValueError: for fields that contradict each other
    """

    params: str | Iterable[str]
    final_sparsity: float | Mapping[float, Sequence[str]] = field(as_finals)
    num_steps: int = field(as_whole)
    start_epoch: float = 0.0
    update_frequency: float = 5.0
    end_epoch: float = -1.0
    num_partitions: int = field(as_count, default=DEFAULT_COUNT)
    partitions: Sequence[Sequence[str]] | None = field(as_partitions, default=None)
    partition_by: str = field(one_of(("tensors", "numel")), default="numel")
    partition_type: str = field(one_of(("cyclic", "random", "fixed")), default="cyclic")
    grown_partition: int | None = field(optional(as_whole), default=None)
    seed: int = field(as_whole, default=0)
    initial_mask: str = field(one_of(("magnitude", "random")), default="magnitude")
    prune_grown_at_start: bool = field(as_flag, default=False)
    reset_optimizer_state: str = field(one_of(("none", "grown", "all")), default="all")
    global_sparsity: bool = False
    mask_type: MaskType = field(as_given, default="unstructured")
    mask_gradients: bool = field(as_flag, default=True)
    leave_enabled: bool = True
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    first_step: int = field(as_whole, default=0)
    final_prune: bool | None = field(
        as_flag, default=None, unset=lambda modifier: modifier.partition_type != "fixed"
    )
    min_start: float = fixed(0.0)
    end_comparator: int = fixed(-1)

    _own_end = False  # whether the end follows from the other fields
    _progress: ClassVar[tuple[str, ...]] = ("_groups", "_grown", "_opened")
    _order_dependence = "it grows and prunes partitions by turns while they train"

    def _set_up(self) -> None:
        self._finals: list[float] = []
        self._groups: list[Partition] = []
        self._grown: Partition | None = None  # positions of what is dense, once it has begun
        self._opened: Partition = ()  # positions of what grows before the next step
        self._now = 0.0

    @property
    def partition_count(self) -> int:
        """How many partitions there are."""
        return int(self.num_partitions if self.partitions is None else len(self.partitions))

    @property
    def schedule(self) -> Schedule:
        """When a step begins or ends, as a value."""
        return (
            _with_edges(super().schedule, self._edges())
            if self._steps_resolved
            else super().schedule
        )

    def check_whole(self) -> None:
        """:raises ValueError: for fields that contradict each other, ``end_epoch`` among them"""
        require_sense(self)
        if self._end_epoch == -1.0 and self._end_step is None:
            self._own_end = True
        self.validate_schedule()
        end = self._last_edge()
        if self._steps_resolved and abs(self._end_epoch - end) > _EARLY * max(1.0, end):
            raise ValueError(
                f"end_epoch of {type(self).__name__} is start_epoch + num_steps * "
                f"update_frequency, {end:g}; leave it out, found {self._end_epoch:g}"
            )

    def resolve_steps(self, steps_per_epoch: int) -> None:
        """Compute the epochs of what is given in steps, the end among them."""
        super().resolve_steps(steps_per_epoch)
        self.check_whole()

    def validate_schedule(self) -> None:
        """:raises ValueError: for a start before epoch 0"""
        if self._own_end:
            self._end_epoch = self._init_end = self._last_edge()
        super().validate_schedule()

    def validate_update(self) -> None:
        """:raises ValueError: for steps that do not last"""
        super().validate_update()
        if not self._update_frequency > 0.0:
            raise ValueError(
                f"update_frequency of {type(self).__name__} is the length of a step and must be "
                f"greater than 0, found {self._update_frequency}"
            )

    def props(self, only_serializable: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the properties; in recipes without an end that follows from the others."""
        values = super().props(only_serializable, *args, **kwargs)
        if only_serializable and self._own_end:
            values.pop("end_epoch", None)
        return values

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find the parameters and plan all steps; at an infinite epoch also prune, in one shot."""
        self.check_whole()
        self._grown = None
        if self.partition_count == 1 and self.num_steps:
            _LOGGER.warning(
                "%s has one partition: all is pruned and grows again at every boundary",
                type(self).__name__,
            )
        super().initialize(module, epoch, loggers, **kwargs)

    def initialize_extras(self, module: Module) -> None:
        self._masks.remembers = True
        self._open(self._groups[0] if self._groups else ())

    def layout(self, module: Module) -> Layout:
        """Return what is done to which parameter; changes nothing.

        :param module: the model; it may be on the meta device, as only names and shapes count
        :raises RuntimeError: for an entry that matches nothing
        :raises ValueError: for partitions that overlap or do not cover ``params``
        """
        return lay_out(self, module)

    def select(
        self, module: Module, params: str | Iterable[str], strict: bool | None = None
    ) -> list[NamedLayerParam]:
        """Return the parameters that entries mean; no token means the table of an embedding."""
        found, tables = super().select(module, params, strict), embedded(module)
        if not any(id(one.param) in tables for one in found):
            return found
        named = [entry for entry in as_entries(params) if entry not in _TOKENS]
        wanted = {id(one.param) for one in super().select(module, named, False)} if named else set()
        return [one for one in found if id(one.param) in wanted or id(one.param) not in tables]

    def selects(self, module: Module) -> list[NamedLayerParam]:
        """Return the parameters that would be pruned, checked as initialising checks them."""
        layout = self.layout(module)
        self._require_reachable(layout)
        return layout.selected

    def sparsities_at(self, module: Module, epoch: float) -> list[float | None]:
        """Return the sparsity that each of :meth:`selects` shall have: 0 for what is grown."""
        layout = self.layout(module)
        return list(self._sparsities(epoch, layout.finals, layout.groups))

    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> list[float]:
        """Return the sparsity of each parameter at ``epoch``: 0 for what is grown then.

        Before the parameters are known it is one value for each that some of them have.
        """
        if self._finals:
            return self._sparsities(epoch, self._finals, self._groups)
        final = self.final_sparsity
        finals = [float(s) for s in final] if isinstance(final, Mapping) else [float(final)]
        if self._grows(epoch) is None:
            return finals
        return [0.0, *finals] if self.partition_count > 1 else [0.0]

    def phase_at(self, epoch: float) -> str:
        """Return what is dense at ``epoch``, in words."""
        step = self._grows(epoch)
        if step is None:
            return "all sparse"
        if self.partition_type == "random":
            return f"1/{self.partition_count} of the tensors dense, by lot"
        fixed, place = self.grown_partition, self.first_step + step
        return f"partition {place % self.partition_count if fixed is None else fixed} dense"

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Update the masks; let the optimizer forget what ``reset_optimizer_state`` says."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self.reset_optimizer_state == "all":
            forget(optimizer)
        elif self.reset_optimizer_state == "grown":
            params = self._masks.params
            forget(optimizer, [params[place] for place in self._grown or ()])
        if self.mask_gradients:
            self._masks.mask_gradients()

    def check_mask_update(self, module: Module, epoch: float, *args: Any, **kwargs: Any) -> None:
        """Prune what has grown, and let grow what is due."""
        self._now = epoch
        super().check_mask_update(module, epoch, *args, **kwargs)

    def optimizer_pre_step(self, *args: Any, **kwargs: Any) -> None:
        """Mask the gradients that were left dense for what was to grow."""
        super().optimizer_pre_step(*args, **kwargs)
        if self._opened and self.mask_gradients:
            self._masks.mask_gradients()

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Mask the weights; what grows before the next step shall get dense gradients for it."""
        super().optimizer_post_step(module, optimizer, epoch, steps_per_epoch)
        following = epoch_of_step(round(epoch * steps_per_epoch) + 1, steps_per_epoch)
        step = None if self._grown is None else self._grows(following)
        grows = () if step is None else self._groups[step]
        self._open(() if grows == self._grown else grows)

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore what is grown, and what is about to be."""
        super().load_progress_state(state)
        self._open(self._opened)

    def apply_target(self, module: Module, target: Any) -> None:
        """Prune what is dense but for what shall grow, then lift the masks of that.

        The masks of parameters that stay sparse are carried over as they are.
        """
        step = self._grows(self._now)
        grows = () if step is None else self._groups[step]
        masks, begins = self._masks, self._grown is None
        if grows and not begins and self._now >= self._edges()[-1]:
            return  # the last step is over, and what it has grown is left dense
        dense = range(len(masks)) if self._grown is None else self._grown
        spared = set(grows) if begins and not self.prune_grown_at_start else set()
        goes = [i for i in dense if i not in spared and self._finals[i] and not self._holds(i)]
        if goes:
            method = Lot(self.seed) if begins and self.initial_mask == "random" else self._method
            problem = self._among(module, goes)
            masks.take(method.outcomes(problem, [[self._finals[i] for i in goes]])[0])
        if grows:
            growing = self._among(module, grows)
            ones = [torch.ones_like(weight, dtype=torch.bool) for weight in growing.weights]
            masks.take(growing.outcome(ones))
        self._grown = tuple(grows)
        _LOGGER.info("%s: %s", type(self).__name__, self.phase_at(self._now))

    def problem(self, module: Module) -> Problem:
        """Return what is to be decided now; of equal weights the first ones stay."""
        return replace(super().problem(module), spread_ties=False)

    def _open(self, places: Partition) -> None:
        self._opened = places
        self._masks.open_gradients = frozenset(
            places if self.mask_gradients else range(len(self._masks))
        )

    def _among(self, module: Module, places: Sequence[int]) -> Problem:
        pattern = self._pattern.among(places)
        return replace(self.problem(module), only=tuple(places), pattern=pattern)

    def _holds(self, place: int) -> bool:
        """Whether a mask, such as one carried over from another run, is what is asked for."""
        mask = self._masks.bits[place]
        if self._masks.sharded or self._grown is not None:
            return False
        gone = mask.numel() - int(mask.sum())
        if self.global_sparsity:  # then no mask has a count of its own; a later step has pruned all
            return gone > 0 and self.first_step > 0
        return gone > 0 and gone == prune_count(mask.numel(), self._finals[place])

    def _goal(self) -> float:
        final = self.final_sparsity
        return max(final) if isinstance(final, Mapping) else float(final)

    def _create_named_layers_and_params(self, module: Module) -> list[NamedLayerParam]:
        layout = self.layout(module)
        self._require_reachable(layout)
        self._finals, self._groups = layout.finals, layout.groups
        return layout.selected

    def _require_reachable(self, layout: Layout) -> None:
        pattern = self._get_pattern(layout.selected)
        for final in {sparsity for sparsity in layout.finals if sparsity}:
            require_reachable(pattern, final, f"final_sparsity of {type(self).__name__}")

    def _grows(self, epoch: float) -> int | None:
        """The step whose group is dense at ``epoch``; None where all is sparse."""
        step = bisect_right(self._edges(), epoch)
        if step < self.num_steps:
            return step
        return None if self.final_prune or not self.num_steps else step - 1

    def _sparsities(
        self, epoch: float, finals: Sequence[float], groups: Sequence[Partition]
    ) -> list[float]:
        step = self._grows(epoch)
        dense = set() if step is None else set(groups[step])
        return [0.0 if place in dense else final for place, final in enumerate(finals)]

    def _last_edge(self) -> float:
        return float(self._start_epoch + self.num_steps * self._update_frequency)

    def _edges(self) -> tuple[float, ...]:
        """The epochs at which steps end."""
        return _edges(self._start_epoch, self._update_frequency, self.num_steps)


@functools.lru_cache(maxsize=64)
def _edges(start: float, every: float, steps: int) -> tuple[float, ...]:
    return tuple(start + step * every - _EARLY for step in range(1, steps + 1))


@functools.lru_cache(maxsize=64)
def _with_edges(schedule: Schedule, edges: tuple[float, ...]) -> Schedule:
    end = edges[-1] if edges else schedule.end
    return replace(schedule, end=end, frequency=None, update_steps=None, also=edges[:-1])
