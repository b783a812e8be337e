"""What all pruning modifiers have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.lazy import lazy_names
from sparseml.pytorch.functional.budgets import Budget, all_after_removal
from sparseml.pytorch.functional.patterns import Pattern
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_names,
    as_optional_names,
    field,
    for_all,
    of_types,
)
from sparseml.pytorch.sparsification.modifier import Loggers, ScheduledUpdateModifier
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.asking import attached, lent, outcomes, reach
from sparseml.pytorch.sparsification.pruning.methods.elementwise import Magnitude
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.sparsification.pruning.old_form import decide_in_old_form, with_old_form
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    MaskType,
    as_inner_fraction,
    as_optional_fraction,
    checked_pattern,
)
from sparseml.pytorch.sparsification.pruning.settings.limits import budget_of, require_room
from sparseml.pytorch.sparsification.pruning.settings.selection_log import (
    log_selection,
    require_values,
)
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import local_part
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.iterables import convert_to_bool

_GRADUAL = f"{__package__}.modifier_pruning_gradual"
__getattr__, __dir__ = lazy_names(__name__, {_GRADUAL: "BaseGradualPruningModifier"})


@with_old_form
class BasePruningModifier(ScheduledUpdateModifier):
    """Prunes parameters, again and again while it is active.

    A pruner is fields, a schedule and a method. Subclasses say how it is decided what goes
    (:meth:`_get_method`), what is pruned together (:meth:`_get_pattern`), how much goes from which
    parameter (:meth:`_get_budget`) and how sparse the parameters shall be
    (:meth:`get_applied_sparsity_for_epoch`). ``docs/adding_a_pruner.md`` shows a complete one.
    Classes of SparseML 1.x, with :meth:`_get_scorer` and :meth:`_get_mask_creator`, work as well.

    :param params: names, ``re:`` patterns, ``__ALL__`` or ``__ALL_PRUNABLE__``
    :param global_sparsity: rank the weights of all parameters together
    :param allow_reintroduction: let masked weights go on training out of sight
    :param leave_enabled: keep the masks in force after ``end_epoch``
    :param max_sparsity_per_param: with ``global_sparsity``, no parameter gets sparser than this
    :param min_sparsity_per_param: with ``global_sparsity``, at the end no parameter is denser than
        ``1 - min_sparsity_per_param``; on the way there the limit grows with the sparsity
    :param exclude: parameters to leave dense although ``params`` selects them, in the same syntax
    :param parent_class_kwarg_names: which other keyword arguments to hand on; None for all
    """

    _params: str | list[str]
    _leave_enabled: bool
    _global_sparsity: bool
    _mask_type: MaskType = "unstructured"
    _grad_sampler_kwargs: dict[str, Any] | None = None
    _masks_params = True
    _decides_once = False  # at the start
    _observes = False  # whether the method looks at the gradients of each step
    _fisher_samples, _gradients_of = "batch", "loss"
    _num_recomputations = 1
    _recomputation_inter_func = "linear"
    _ahead = False  # whether training follows what is being decided
    _progress: ClassVar[tuple[str, ...]] = ("_applied_sparsity", "_masks", "_method", "_sampler")

    def __init__(
        self,
        params: str | Iterable[str],
        start_epoch: float = -1.0,
        min_start: float = -1.0,
        end_epoch: float = -1.0,
        min_end: float = -1.0,
        end_comparator: int | None = 0,
        update_frequency: float = -1.0,
        min_frequency: float = -1.0,
        global_sparsity: bool = False,
        allow_reintroduction: bool = False,
        leave_enabled: bool = False,
        parent_class_kwarg_names: Sequence[str] | None = None,
        *,
        max_sparsity_per_param: float | None = None,
        min_sparsity_per_param: float | None = None,
        exclude: str | Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        if parent_class_kwarg_names is not None:
            kwargs = {name: kwargs[name] for name in parent_class_kwarg_names if name in kwargs}
        kwargs |= {"update_frequency": update_frequency, "min_frequency": min_frequency}
        super().__init__(start_epoch, min_start, end_epoch, min_end, end_comparator, **kwargs)
        self.params, self.exclude = params, exclude
        self._global_sparsity = convert_to_bool(global_sparsity)
        self.allow_reintroduction = allow_reintroduction
        self._leave_enabled = convert_to_bool(leave_enabled)
        self.max_sparsity_per_param = max_sparsity_per_param
        self.min_sparsity_per_param = min_sparsity_per_param
        self._method: Any = None  # a Method, from initialize on
        self._masks: Any = None  # a MaskSet, while initialised
        self._sampler: GradientSampler | None = None
        self._door: Any = None  # what SparseML 1.x calls mask creator, scorer and module masks
        self._applied_sparsity: Target | None = None
        self._observed = False
        self.notes: list[str] = []  # sentences on what was chosen, for those who read of the run

    params = field(as_names)
    exclude = for_all(as_optional_names, default=None)
    leave_enabled = field(as_flag)
    global_sparsity = field(as_flag)
    max_sparsity_per_param = field(as_optional_fraction)
    min_sparsity_per_param = field(as_optional_fraction)

    sparsification_types = of_types(SparsificationTypes.pruning)
    needs = lent

    @property
    def masks(self) -> MaskSet:
        """The masks. Before initialisation it raises a RuntimeError."""
        if self._masks is None:
            raise RuntimeError(f"{type(self).__name__} has no masks; call initialize(module) first")
        return self._masks

    @property
    def method(self) -> Method:
        """How it is decided what goes. Before initialisation it raises a RuntimeError."""
        if self._method is None:
            raise RuntimeError(f"{type(self).__name__} decides nothing before initialize(module)")
        return self._method

    @property
    def applied_sparsity(self) -> Target | None:
        """The sparsity asked for at the last update, None before the first."""
        return self._applied_sparsity

    def validate_update(self) -> None:
        """:raises ValueError: for a frequency that is neither -1 (every step) nor above 0"""
        super().validate_update()
        every, allowed = self._update_frequency, "must be above 0, or -1 for every step"
        if every != -1.0 and not every > 0.0:
            raise ValueError(f"update_frequency of {type(self).__name__} {allowed}, found {every}")

    @abstractmethod
    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> Any:
        """Return the sparsity to ask for at ``epoch``: one for all parameters, or a list."""

    def _get_method(self) -> Method:
        """Return how it is decided what goes."""
        return Magnitude()

    def _get_pattern(self, selected: Sequence[NamedLayerParam]) -> Pattern:
        """Return what is pruned together; raise a ValueError for what it cannot cut."""
        return checked_pattern(self._mask_type, selected)

    def _get_budget(self) -> Budget:
        """Return how much goes from which parameter."""
        return budget_of(self, self._goal())

    def _goal(self) -> float:
        """The sparsity at the end, of all parameters where they are ranked together."""
        return 1.0

    def _get_sampler(self, given: Any) -> GradientSampler | None:
        """Return where gradients come from: the ``grad_sampler`` given, if the method samples."""
        if not self._method.samples:
            return None
        how = {"sample": True, "auto": None}.get(self._fisher_samples, False), self._gradients_of
        return GradientSampler(given, self._grad_sampler_kwargs or {}, type(self).__name__, *how)

    def initialize_extras(self, module: Module) -> None:
        """Prepare what a subclass needs besides; called last, when the masks exist."""

    def _prepare(self, selected: Sequence[NamedLayerParam]) -> None:
        """Check and measure the parameters, when pattern and parameters are known."""

    def _before_mask_update(self, module: Module, target: Any) -> None:
        """Prepare an update; called right before it is decided what goes."""

    def selects(self, module: Module) -> list[NamedLayerParam]:
        """Return the parameters that would be pruned, checked as initialising checks them."""
        selected = self._create_named_layers_and_params(module)
        self._get_pattern(selected)
        return selected

    def sparsities_at(self, module: Module, epoch: float) -> list[float | None]:
        """Return the sparsity that each of :meth:`selects` shall have, None where none is asked."""
        selected = self._create_named_layers_and_params(module)
        asked = self.get_applied_sparsity_for_epoch(epoch, 1)
        return list(asked) if isinstance(asked, (list, tuple)) else [asked] * len(selected)

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find the parameters; at an infinite epoch also prune them, in one shot.

        A finite epoch past the start changes nothing before the first update.

        :param kwargs: ``grad_sampler``, for methods that sample gradients; ``masters`` of MaskSet
        :raises ValueError: when nothing is selected, for parameters without values, and for those
            that the masks do not fit
        :raises RuntimeError: for an entry of ``params`` without a match, and what a method lacks
        """
        self._release_masks()
        self._method = self._get_method()
        self._sampler = self._get_sampler(kwargs.get("grad_sampler"))
        selected = self._create_named_layers_and_params(module)
        require_values(selected)
        self._pattern = self._get_pattern(selected)
        self._prepare(selected)
        self._budget = self._get_budget()
        require_room(self._budget, self._pattern, selected, self._goal())
        self._masks = MaskSet(selected, kwargs.get("masters"), self.allow_reintroduction)
        decide_in_old_form(self)
        self._observes = type(self._method).observe is not Method.observe
        super().initialize(module, epoch, loggers, **kwargs)
        self.initialize_extras(module)
        log_selection(self, module, selected)
        if math.isinf(epoch):
            self.check_mask_update(module, epoch, **{**kwargs, "steps_per_epoch": 1})
            self._observed = False

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Mask the weights for the last time and let go of the model."""
        super().finalize(module, reset_loggers, **kwargs)
        self._release_masks()

    def outcome(self, module: Module, sparsity: Target | None = None, **kwargs: Any) -> Outcome:
        """Return the masks and weights that pruning now would give; nothing is changed.

        :param sparsity: of all parameters together, of each, or a list with one for each; by
            default what the schedule asks for at the end
        :param kwargs: as for :meth:`initialize`, unless that was called before
        """
        with attached(self, module, kwargs):
            ends = self.get_applied_sparsity_for_epoch(math.inf, 1)
            return next(outcomes(self, module, [ends if sparsity is None else sparsity]))

    def sweep(
        self, module: Module, sparsities: Sequence[float], **kwargs: Any
    ) -> Iterator[tuple[float, Outcome]]:
        """Yield the outcome of several sparsities, in one shot each; the model stays as it is.

        Sampling and elimination are done once, for the highest; each sparsity then costs no more
        than its update of the weights. With several recomputations each is reached by itself.

        :param sparsities: fractions to prune, of all parameters together with ``global_sparsity``
        :param kwargs: as for :meth:`initialize`
        :return: pairs of sparsity and outcome; ``outcome.write(model)`` prunes a model
        :raises ValueError: for a sparsity outside (0, 1)
        """
        wanted = [as_inner_fraction("sparsities", sparsity) for sparsity in sparsities]
        with attached(self, module, kwargs):
            yield from zip(wanted, outcomes(self, module, wanted), strict=True)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Update the masks, and clear what the optimizer remembers where they changed."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        before = self._masks.bits
        self.check_mask_update(module, epoch, steps_per_epoch)
        self._masks.forget_changed(optimizer, before)

    def check_mask_update(
        self,
        module: Module,
        epoch: float,
        steps_per_epoch: int,
        recomputation_sparsity: Any = None,
        **kwargs: Any,
    ) -> None:
        """Put the masks in force when due to start, update them, and finish when due to end.

        :param recomputation_sparsity: the sparsity to ask for, instead of the schedule's
        """
        one_shot = self.is_oneshot(epoch, steps_per_epoch)
        starting = one_shot or self.start_pending(epoch, steps_per_epoch)
        if starting:
            self._masks.enabled = True
        if self._observes:
            self._observe_once()
        if starting or (self._started and not self._decides_once):
            target = recomputation_sparsity
            if target is None:
                target = self.get_applied_sparsity_for_epoch(epoch, steps_per_epoch)
            self._applied_sparsity, self._ahead = target, not one_shot
            self.apply_target(module, target)
            self._ahead = False
        # what starts at its end is not known to be started yet, so nothing else tells of the end
        ends_at_once = starting and epoch >= self._end_epoch >= 0.0
        if not one_shot and (ends_at_once or self.end_pending(epoch, steps_per_epoch)):
            self._end_pruning()

    def optimizer_pre_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Let the method see the gradients; with reintroduction, put masked values back."""
        if not (self._initialized and self._enabled):
            self._require_active("optimizer_pre_step")
        if self._observes and not self._ended:
            self._observe_once()
        if self._masks.allow_reintroduction:
            self._masks.restore_unmasked()

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Mask the weights that the optimizer has just moved."""
        if not (self._initialized and self._enabled):
            self._require_active("optimizer_post_step")
        self._observed = False
        self._masks.apply()

    def log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the measured sparsity of each parameter as ``ParamPruning/<layer>.<param>``."""
        super().log_update(module, optimizer, epoch, steps_per_epoch)
        masks = self._masks
        for name, param in zip(masks.full_names, masks.params, strict=True):
            values = local_part(param) if masks.sharded else param.detach()
            kept, size = int(torch.count_nonzero(values)), values.numel()
            sparsity, tag = (size - kept) / max(size, 1), f"ParamPruning/{name}"
            self.log_scalar(sparsity, tag, epoch=epoch, steps_per_epoch=steps_per_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the masks, ``<layer>.<param>.sparsity_mask``; ones where none is in force."""
        return OrderedDict({} if self._masks is None else self._masks.named_state(self._ended))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Restore masks, and mask the weights at once."""
        self._require_initialized("load_state_dict")
        self._masks.load_named_state(state_dict, strict, type(self).__name__)

    def is_oneshot(self, epoch: float, steps_per_epoch: int) -> bool:
        """Return whether these are the arguments of a one-shot application."""
        return steps_per_epoch == 1 and math.isinf(epoch)

    def apply_target(self, module: Module, target: Any) -> None:
        """Bring the parameters to the sparsity asked for."""
        self._before_mask_update(module, target)
        masks = self._masks
        if masks.allow_reintroduction:
            masks.restore_unmasked()
        sizes = [param.numel() for param in masks.params]
        if target and sizes != masks.original_sizes:
            target = self._remaining(target, sizes)
        if self._num_recomputations > 1:
            return reach(self, module, target)
        masks.take(outcome := self._method.outcomes(self.problem(module), [target])[0])
        self.notes += outcome.notes

    def _remaining(self, target: Any, sizes: Sequence[int]) -> Any:
        """The target for what is left, where weights have been removed since the start."""
        return all_after_removal(target, sizes, self._masks.original_sizes)

    def problem(self, module: Module) -> Problem:
        """Return what is to be decided now."""
        given = (module, self._masks, self._pattern, self._budget, self._sampler)
        return Problem(*given, ahead=self._ahead)

    def _end_pruning(self) -> None:
        self._masks.end(self._leave_enabled)
        self._method.end()

    def _observe_once(self) -> None:
        if not self._observed:
            self._method.observe(self._masks)
            self._observed = True

    def _release_masks(self) -> None:
        if self._masks is not None:
            self._masks.apply(plain_zeros=True)
            self._masks.enabled = False
            self._masks = None

    def _create_named_layers_and_params(self, module: Module) -> list[NamedLayerParam]:
        return self.select(module, self._params)
