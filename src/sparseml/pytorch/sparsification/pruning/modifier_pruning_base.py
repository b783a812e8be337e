"""What all pruning modifiers have in common."""

from __future__ import annotations

import copy
import logging
import math
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import Module, Parameter
from torch.optim import Optimizer
from typing_extensions import Self

from sparseml.pytorch.sparsification.fields import as_flag, as_names, field, of_types
from sparseml.pytorch.sparsification.modifier import Loggers, ScheduledUpdateModifier
from sparseml.pytorch.sparsification.param_selection import select_params
from sparseml.pytorch.sparsification.pruning.analyzer import ModulePruningAnalyzer
from sparseml.pytorch.sparsification.pruning.mask_creator_base import (
    Budget,
    PruningMaskCreator,
    Target,
)
from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask
from sparseml.pytorch.sparsification.pruning.mask_state import load_named_masks, named_masks
from sparseml.pytorch.sparsification.pruning.optimizer_state import clear_optimizer_state
from sparseml.pytorch.sparsification.pruning.scorer import PruningParamsScorer
from sparseml.pytorch.sparsification.pruning.selection_log import (
    describe_selection,
    require_values,
)
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.iterables import convert_to_bool

__all__ = ["BasePruningModifier"]

_LOGGER = logging.getLogger(__name__)


class BasePruningModifier(ScheduledUpdateModifier):
    """Prunes parameters, again and again while it is active.

    Subclasses say what is pruned together (:meth:`_get_mask_creator`), how weights are scored
    (:meth:`_get_scorer`) and how sparse they shall be (:meth:`get_applied_sparsity_for_epoch`).
    Optional hooks: :meth:`_get_budget`, :meth:`initialize_extras`, :meth:`_before_mask_update`.

    One shot (an infinite epoch at initialisation) and gradual use go through
    :meth:`check_mask_update` alike.

    :param params: names, ``re:`` patterns, ``__ALL__`` or ``__ALL_PRUNABLE__``
    :param global_sparsity: rank the weights of all parameters together
    :param allow_reintroduction: let masked weights go on training out of sight
    :param leave_enabled: keep the masks in force after ``end_epoch``
    :param parent_class_kwarg_names: of the keyword arguments not listed here, those to hand on to
        the next class; None hands on all
    """

    _params: str | list[str]
    _leave_enabled: bool
    _global_sparsity: bool

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
        **kwargs: Any,
    ) -> None:
        if parent_class_kwarg_names is not None:
            kwargs = {name: kwargs[name] for name in parent_class_kwarg_names if name in kwargs}
        kwargs |= {"update_frequency": update_frequency, "min_frequency": min_frequency}
        super().__init__(start_epoch, min_start, end_epoch, min_end, end_comparator, **kwargs)
        self.params = params
        self._global_sparsity = convert_to_bool(global_sparsity)
        self._allow_reintroduction = allow_reintroduction
        self._leave_enabled = convert_to_bool(leave_enabled)
        self._mask_creator: PruningMaskCreator | None = None
        self._scorer: PruningParamsScorer | None = None
        self._module_masks: ModuleParamPruningMask | None = None
        self._analyzers: list[ModulePruningAnalyzer] | None = None
        self._applied_sparsity: Target | None = None
        self._pre_step_completed = False

    params = field(as_names)
    leave_enabled = field(as_flag)
    global_sparsity = field(as_flag)

    sparsification_types = of_types(SparsificationTypes.pruning)

    @property
    def module_masks(self) -> ModuleParamPruningMask | None:
        """The masks, None unless initialised."""
        return self._module_masks

    @property
    def analyzers(self) -> list[ModulePruningAnalyzer] | None:
        """What measures the sparsity of each parameter, None unless initialised."""
        return self._analyzers

    @property
    def mask_creator(self) -> PruningMaskCreator | None:
        """What makes the masks, None before initialisation."""
        return self._mask_creator

    @property
    def scorer(self) -> PruningParamsScorer | None:
        """What scores the parameters, None before initialisation."""
        return self._scorer

    @property
    def allow_reintroduction(self) -> bool:
        """Whether masked weights go on training out of sight."""
        return self._allow_reintroduction

    @property
    def applied_sparsity(self) -> Target | None:
        """The sparsity asked for at the last update, None before the first."""
        return self._applied_sparsity

    def validate_update(self) -> None:
        """Check the update frequency.

        :raises ValueError: for one that is neither -1 (every step) nor above 0
        """
        super().validate_update()
        if self._update_frequency != -1.0 and not self._update_frequency > 0.0:
            raise ValueError(
                f"update_frequency of {type(self).__name__} must be above 0, or -1 for every step, "
                f"found {self._update_frequency}"
            )

    @abstractmethod
    def _get_mask_creator(
        self, param_names: list[str], params: list[Parameter]
    ) -> PruningMaskCreator:
        """What makes masks of scores."""

    @abstractmethod
    def _get_scorer(self, params: list[Parameter]) -> PruningParamsScorer:
        """What scores the parameters."""

    @abstractmethod
    def get_applied_sparsity_for_epoch(self, epoch: float, steps_per_epoch: int) -> Any:
        """The sparsity to ask for at ``epoch``: one for all parameters, or a list."""

    def _get_budget(self, params: list[Parameter]) -> Budget | None:
        """How many weights go in each parameter; None leaves it to the sparsity alone."""
        return None

    def _require_reachable(self, mask_creator: PruningMaskCreator) -> None:
        """Check that the masks can have the sparsities asked for.

        :raises ValueError: if they cannot
        """

    def selecting_entries(self) -> list[str]:
        """Return the tokens, names and patterns by which parameters are selected, in order."""
        entries = self._selecting_entries()
        return [entries] if isinstance(entries, str) else list(entries)

    def selects(self, module: Module) -> list[NamedLayerParam]:
        """Return the parameters that are pruned, checked as initialising checks them.

        :raises RuntimeError: for an entry that matches nothing
        :raises ValueError: if nothing is selected at all, or the masks do not fit the parameters
        """
        probe = self._unattached_copy()
        selected = probe._create_named_layers_and_params(module)
        shapes: list[Any] = [torch.zeros(()).expand(found.param.shape) for found in selected]
        probe._require_reachable(
            probe._get_mask_creator([found.name for found in selected], shapes)
        )
        return selected

    def sparsities_at(self, module: Module, epoch: float) -> list[float | None]:
        """Return the sparsity asked for at ``epoch`` of each parameter; None where there is none.

        :raises RuntimeError: for an entry that matches nothing
        """
        probe = self._unattached_copy()
        selected = probe._create_named_layers_and_params(module)
        asked = probe.get_applied_sparsity_for_epoch(epoch, 1)
        return list(asked) if isinstance(asked, (list, tuple)) else [asked] * len(selected)

    def _unattached_copy(self) -> Self:
        # what selects parameters notes their sparsities, which a modifier in use must not lose
        probe = copy.copy(self)
        probe._initialized = False  # a modifier deleted while initialised detaches itself
        return probe

    def initialize_extras(self, module: Module) -> None:
        """Called at the end of initialisation, when the masks exist."""

    def _before_mask_update(self, module: Module, target: Any) -> None:
        """Called right before parameters are scored; the place to sample gradients."""

    def _apply_target(self, module: Module, target: Any) -> None:
        """Bring the parameters to the sparsity asked for."""
        self._before_mask_update(module, target)
        self._masks.update_param_masks(target)

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find the parameters; at an infinite epoch also prune them, in one shot.

        A finite epoch past the start changes nothing before the first update.

        :raises ValueError: when nothing is selected, for parameters without values, and for those
            that the masks do not fit
        :raises RuntimeError: for an entry of ``params`` that matches nothing
        """
        selected = self._create_named_layers_and_params(module)
        require_values(selected)
        params = [found.param for found in selected]
        mask_creator = self._get_mask_creator([found.name for found in selected], params)
        self._release_masks()
        self._mask_creator = mask_creator
        self._scorer = self._get_scorer(params)
        self._module_masks = self._create_pruning_mask(selected, mask_creator)
        self._analyzers = self._create_analyzers(selected)
        super().initialize(module, epoch, loggers, **kwargs)
        self.initialize_extras(module)
        description = describe_selection(module, self._selecting_entries(), selected)
        _LOGGER.info("%s %s", type(self).__name__, description)
        if math.isinf(epoch):
            extras = {name: value for name, value in kwargs.items() if name != "steps_per_epoch"}
            self.check_mask_update(module, epoch, steps_per_epoch=1, **extras)
            self._pre_step_completed = False

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Mask the weights for the last time and let go of the model."""
        super().finalize(module, reset_loggers, **kwargs)
        self._release_masks()
        self._analyzers = None

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Update the masks, and clear what the optimizer remembers where they changed."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        masks = self._masks
        before = masks.param_masks
        self.check_mask_update(module, epoch, steps_per_epoch)
        if masks.allow_reintroduction:
            return
        if clear_optimizer_state(optimizer, masks.params, before, masks.param_masks):
            masks.mask_gradients()

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
        masks = self._masks
        one_shot = self.is_oneshot(epoch, steps_per_epoch)
        starting = one_shot or self.start_pending(epoch, steps_per_epoch)
        if starting:
            masks.enabled = True
        self._pre_step_once()
        if self._mask_update_due(starting):
            target = recomputation_sparsity
            if target is None:
                target = self.get_applied_sparsity_for_epoch(epoch, steps_per_epoch)
            self._applied_sparsity = target
            self._apply_target(module, target)
        # what starts at its end is not known to be started yet, so nothing else tells of the end
        ends_at_once = starting and epoch >= self._end_epoch >= 0.0
        if not one_shot and (ends_at_once or self.end_pending(epoch, steps_per_epoch)):
            self._end_pruning()

    def optimizer_pre_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Let the scorer see the gradients; with reintroduction, put masked values back."""
        super().optimizer_pre_step(module, optimizer, epoch, steps_per_epoch)
        self._pre_step_once()
        self._masks.restore_unmasked()

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Mask the weights that the optimizer has just moved."""
        super().optimizer_post_step(module, optimizer, epoch, steps_per_epoch)
        self._pre_step_completed = False
        self._masks.apply()

    def log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the measured sparsity of each parameter as ``ParamPruning/<layer>.<param>``."""
        super().log_update(module, optimizer, epoch, steps_per_epoch)
        for analyzer in self._analyzers or []:
            self.log_scalar(
                analyzer.param_sparsity.item(),
                tag=f"ParamPruning/{analyzer.tag}",
                epoch=epoch,
                steps_per_epoch=steps_per_epoch,
            )

    def state_dict(self) -> dict[str, Any]:
        """The masks by name, ``<layer>.<param>.sparsity_mask``; ones where none is in force."""
        masks = self._module_masks
        return OrderedDict() if masks is None else named_masks(masks, lifted=self._ended)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Restore masks, and mask the weights at once.

        :raises RuntimeError: before initialisation
        :raises IndexError: with ``strict``, when the names differ
        """
        self._require_initialized("load_state_dict")
        load_named_masks(self._masks, state_dict, strict, type(self).__name__)

    def progress_state(self) -> dict[str, Any]:
        """Adds the sparsity last asked for, and what masks and scorer have collected."""
        state = {**super().progress_state(), "applied_sparsity": self._applied_sparsity}
        if self._module_masks is not None:
            state["masks"] = self._module_masks.progress_state()
        return state

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restores these, and puts masks back in force that were."""
        super().load_progress_state(state)
        self._applied_sparsity = state["applied_sparsity"]
        if "masks" in state:
            self._masks.load_progress_state(state["masks"])

    def is_oneshot(self, epoch: float, steps_per_epoch: int) -> bool:
        """Whether these are the arguments of a one-shot application."""
        return steps_per_epoch == 1 and math.isinf(epoch)

    @property
    def _masks(self) -> ModuleParamPruningMask:
        if self._module_masks is None:
            raise RuntimeError(f"{type(self).__name__} has no masks; call initialize(module) first")
        return self._module_masks

    def _mask_update_due(self, starting: bool) -> bool:
        return starting or self._started

    def _end_pruning(self) -> None:
        self._masks.pruning_end(self._leave_enabled)

    def _pre_step_once(self) -> None:
        if not self._pre_step_completed:
            self._masks.pre_optim_step_update()
            self._pre_step_completed = True

    def _release_masks(self) -> None:
        if self._module_masks is not None:
            self._module_masks.apply(plain_zeros=True)
            self._module_masks.enabled = False
            self._module_masks = None

    def _selecting_entries(self) -> str | list[str]:
        return self._params

    def _create_named_layers_and_params(self, module: Module) -> list[NamedLayerParam]:
        return select_params(module, self._params)

    def _create_pruning_mask(
        self, selected: Sequence[NamedLayerParam], mask_creator: PruningMaskCreator
    ) -> ModuleParamPruningMask:
        return ModuleParamPruningMask(
            [found.layer for found in selected],
            mask_creator,
            self._scorer,
            param_names=[found.param_name for found in selected],
            layer_names=[found.layer_name for found in selected],
            global_sparsity=self._global_sparsity,
            allow_reintroduction=self._allow_reintroduction,
            forward_hooks=False,
            budget=self._get_budget([found.param for found in selected]),
        )

    def _create_analyzers(self, selected: Sequence[NamedLayerParam]) -> list[ModulePruningAnalyzer]:
        return [
            ModulePruningAnalyzer(found.layer, found.layer_name, found.param_name)
            for found in selected
        ]
