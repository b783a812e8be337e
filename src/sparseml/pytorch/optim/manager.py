"""The manager: drives the modifiers of a recipe inside anyone's training loop."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import Optimizer

from sparseml.optim.manager import BaseManager, with_added
from sparseml.optim.recipe import load_recipe
from sparseml.optim.schedule import ONE_SHOT, epoch_of_step
from sparseml.pytorch.optim.managed import progress
from sparseml.pytorch.optim.managed.attaching import attaching, require_masks_in, require_unused
from sparseml.pytorch.optim.managed.progress import Modifiers
from sparseml.pytorch.optim.step_driver import Position, StepDriver
from sparseml.pytorch.optim.step_wrapper import RecipeManagerStepWrapper
from sparseml.pytorch.optim.summary import RunSummary, summarize
from sparseml.pytorch.sparsification.modifier import PYTORCH_FRAMEWORK, Loggers, Modifier
from sparseml.pytorch.sparsification.pruning.settings.overlap import require_own_parameters
from sparseml.pytorch.sparsification.statistics import Judged, TunedAround

_LOGGER = logging.getLogger(__name__)
_PARALLEL = (DataParallel, DistributedDataParallel)


class ScheduledModifierManager(BaseManager, Modifier):
    """The modifiers of a recipe, in the order they act in, and what makes them act.

    Drive it by the optimizer that :meth:`modify` returns, or by a
    :class:`~sparseml.pytorch.optim.step_driver.StepDriver` beside your own.

    | Sample use:
    |   manager = ScheduledModifierManager.from_yaml("recipe.yaml")
    |   optimizer = manager.modify(model, optimizer, steps_per_epoch=len(loader))
    |   for epoch in range(manager.max_epochs):
    |       ...  # the usual loop; optimizer.step() drives the modifiers
    |   manager.finalize(model)

    :param modifiers: the modifiers, or stage name → modifiers
    :param metadata: metadata of the recipe, JSON serialisable
    """

    def __init__(self, modifiers: Modifiers, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(modifiers=modifiers, metadata=metadata)
        own: Any = self._modifiers  # not copied: a plain list of modifiers is one to change
        self._members: list[Any] = own if isinstance(own, list) else list(self.iter_modifiers())
        self._initialize_epoch: float = 0
        self._has_progress = False
        self.position: Position | None = None
        """Where the run stands; None before this manager has taken part in a step."""
        self._resumes = self._stepped = False
        self._last_summary: RunSummary | None = None
        self.norms: Judged | None = None
        """What came of measuring batch norms anew in :meth:`apply`; None if they were not."""
        self._driver: weakref.ref[StepDriver] | None = None

    def __del__(self) -> None:
        """Modifiers may well outlive their manager, so nothing is finalised here."""

    def __getstate__(self) -> dict[str, Any]:
        # a copy drives no optimizer yet, and weak references cannot be pickled
        return {**self.__dict__, "_driver": None}

    @classmethod
    def from_yaml(  # type: ignore[override]
        cls,
        file_path: str | os.PathLike[str],
        add_modifiers: Modifiers | None = None,
        recipe_variables: dict[str, Any] | str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> ScheduledModifierManager:
        """Return a manager for a recipe.

        :param file_path: a ``.yaml`` or ``.md`` file, or the text of a recipe
        :param add_modifiers: modifiers to add; in a staged recipe to its last stage, unless given
            as stage name → modifiers
        :param recipe_variables: values for variables of the recipe: a mapping, JSON, or
            ``name=value,...``
        :param metadata: metadata to use instead of the recipe's own
        :raises RecipeError: if anything is wrong with the recipe; also an instance of the plain
            class that fits (ValueError, TypeError, FileNotFoundError, ...)
        """
        versions = {"torch_version": str(torch.__version__)}
        given = (file_path, PYTORCH_FRAMEWORK, recipe_variables, metadata, versions)
        recipe = load_recipe(*given)
        manager = ScheduledModifierManager(recipe.modifiers, recipe.metadata)
        if not add_modifiers:
            return manager
        added = with_added(manager.modifiers, add_modifiers)
        return ScheduledModifierManager(added, recipe.metadata)

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Initialise every modifier that is not yet.

        :param epoch: the epoch training starts at
        :param kwargs: handed to every modifier. ``steps_per_epoch`` fixes schedules that are given
            in optimizer steps; some modifiers need ``grad_sampler`` or ``distillation_teacher``
        """
        if kwargs.get("steps_per_epoch"):
            self.resolve_steps(kwargs["steps_per_epoch"])
        self._initialize_epoch = epoch
        self.initialize_loggers(loggers)
        with attaching(self.iter_modifiers(), module):
            for modifier in self.iter_modifiers():
                if not modifier.initialized:
                    modifier.initialize(module, epoch, self._loggers, **kwargs)
            require_own_parameters(self.iter_modifiers())
        self._initialized = True

    def initialize_loggers(self, loggers: Loggers) -> None:
        """Set where this manager and all of its modifiers log to."""
        super().initialize_loggers(loggers)
        for modifier in self.iter_modifiers():
            modifier.initialize_loggers(self._loggers)

    def modify(
        self,
        module: Module,
        optimizer: Any,
        steps_per_epoch: int,
        wrap_optim: Any = None,
        epoch: float | None = None,
        allow_parallel_module: bool = True,
        **kwargs: Any,
    ) -> RecipeManagerStepWrapper:
        """Wrap an optimizer so that its ``step`` drives the modifiers.

        :param optimizer: the optimizer handed to the modifiers
        :param steps_per_epoch: optimizer steps (not batches, when gradients are accumulated) that
            make an epoch
        :param wrap_optim: what the training loop steps, when that is not the optimizer: a gradient
            scaler, for example
        :param epoch: the epoch to start at; by default the one given to :meth:`initialize`, or
            where a state loaded since has stopped
        :param allow_parallel_module: hand a (Distributed)DataParallel module to the modifiers as it
            is, instead of the module inside
        :param kwargs: handed to :meth:`initialize` unless that was called before
        :return: to be used in place of ``wrap_optim`` or ``optimizer``
        :raises ValueError: if ``steps_per_epoch`` is not positive
        """
        start = Position.at(0.0 if epoch is None else epoch, steps_per_epoch)
        if not allow_parallel_module:
            module = module.module if isinstance(module, _PARALLEL) else module
        self.resolve_steps(steps_per_epoch)
        if not self._initialized:
            self.initialize(module, start.epoch, **kwargs)
        wrapped = optimizer if wrap_optim is None else wrap_optim
        return RecipeManagerStepWrapper(wrapped, optimizer, module, self, epoch, steps_per_epoch)

    def attach_driver(self, driver: StepDriver) -> Position:
        """Remember who counts the steps, so that :meth:`load_state_dict` can set the count.

        :return: where the steps start unless it is said otherwise: where a state loaded since the
            last driver has stopped, or else the epoch given to :meth:`initialize`
        :raises RuntimeError: if this manager is initialised, with its masks in another model, or
            was finalized after a training, as modifiers start but once
        """
        require_masks_in(driver.module, self.iter_modifiers())
        if not self._has_progress:  # of a run that goes on
            require_unused(self.iter_modifiers())
        self._driver = weakref.ref(driver)
        stopped = self.position if self._resumes else None
        self._resumes = False
        return stopped or Position.at(self._initialize_epoch, driver.position.steps_per_epoch)

    def apply(
        self,
        module: Module,
        epoch: float = ONE_SHOT,
        loggers: Loggers = None,
        finalize: bool = True,
        **kwargs: Any,
    ) -> None:
        """Apply the recipe in one shot, without training.

        The modifiers of a stage are initialised, which is when they act, and then finalised before
        the next stage begins. Each modifier of a plain recipe is a stage of its own.

        Given data, the running statistics of batch norms are measured anew at the end, on about
        1,600 inputs: they belong to the weights before pruning. (Without ``finalize``, which leaves
        the modifiers to go on, only if that is asked for.) They stay as they were where the
        new ones would cost the dense model, as then the inputs are not such as it was trained on,
        or do not lower the loss of the pruned one on held-out batches. :attr:`norms` tells.

        :param kwargs: handed to every modifier, but for two: ``bn_data``, batches ``(inputs,
            labels)`` augmented as in training, by default those of the ``grad_sampler``, and
            ``bn_retune``, how many batches to measure on, 0 for none
        :raises ValueError: for a ``bn_retune`` that is no number of batches
        """
        data = kwargs.pop("bn_data", None)
        goes_on = not finalize and data is None
        asked = kwargs.pop("bn_retune", 0 if goes_on else None)
        named = (getattr(one, "grad_sampler_kwargs", None) for one in self.iter_modifiers())
        keywords: dict[str, Any] = next(filter(None, named), {})
        tuned = TunedAround(module, asked, data, kwargs.get("grad_sampler"), keywords)
        self.initialize_loggers(loggers)
        with attaching(self.iter_modifiers(), module):
            for group in self._groups():
                for modifier in group:
                    if not modifier.initialized:
                        modifier.initialize(module, epoch, self._loggers, **kwargs)
                if finalize:
                    for modifier in group:
                        modifier.finalize(module, **kwargs)
        self._initialized = True
        if finalize:
            super().finalize(module)
            self._summarize_end(None, module)
        self.norms = tuned.finish(module)

    def apply_structure(
        self,
        module: Module,
        epoch: float = 0.0,
        loggers: Loggers = None,
        finalize: bool = False,
        **kwargs: Any,
    ) -> None:
        """Bring the module's structure (not its values) to what it is at ``epoch``."""
        for modifier in self.iter_modifiers():
            modifier.apply_structure(module, epoch, loggers, finalize, **kwargs)

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Finalise all modifiers; ``kwargs`` are handed to each.

        A run that took no step, or that stopped before the recipe's end, is warned of.

        :raises RuntimeError: if the manager is not initialised, or was finalised before
        """
        self._require_initialized("finalize")
        training = self._driver is not None and math.isfinite(self._initialize_epoch)
        only_loaded = self.position is not None and not self._stepped
        warns = training and self._enabled and not only_loaded
        position, self.position = self.position, None
        super().finalize(module, reset_loggers)
        self._has_progress = self._resumes = self._stepped = False
        for modifier in self.iter_modifiers():
            if modifier.initialized:
                modifier.finalize(module, reset_loggers, **kwargs)
        ended = self._summarize_end(position, module)
        if warns and ended.shortfall:
            _LOGGER.warning("%s", ended.shortfall)

    def _summarize_end(self, position: Position | None, module: Module | None) -> RunSummary:
        """Keep where the run has ended, and warn of what nobody wants."""
        self._last_summary = found = summarize(self.iter_modifiers(), position, module)
        for text in [text for one in found.pruning for text in one.wrong]:
            _LOGGER.warning("%s", text)
        return found

    def summary(self, module: Module | None = None) -> RunSummary:
        """Return where the run stands, to be printed; once finalised, where it has ended.

        :param module: the model, to tell what would be pruned before this manager is initialised
        """
        if self._last_summary is not None and not self._initialized:
            return self._last_summary
        return summarize(self.iter_modifiers(), self.position, module)

    def update(
        self,
        module: Module,
        optimizer: Optimizer,
        epoch: float,
        steps_per_epoch: int,
        log_updates: bool = True,
    ) -> None:
        """Update, and then let log, every modifier that is due at ``epoch``."""
        if not (self._initialized and self._enabled):
            self._require_active("update")
        for modifier in self._members:
            if modifier._enabled and modifier.update_ready(epoch, steps_per_epoch):
                modifier.scheduled_update(module, optimizer, epoch, steps_per_epoch)
                if log_updates:
                    modifier.scheduled_log_update(module, optimizer, epoch, steps_per_epoch)
        self._has_progress = True

    def loss_update(
        self,
        loss: Tensor,
        module: Module,
        optimizer: Optimizer,
        epoch: float,
        steps_per_epoch: int,
        **kwargs: Any,
    ) -> Tensor:
        """Return the loss to differentiate, after every enabled modifier has had its say."""
        if not (self._initialized and self._enabled):
            self._require_active("loss_update")
        arguments = (module, optimizer, epoch, steps_per_epoch)
        for modifier in self._members:
            if modifier._enabled:
                loss = modifier.loss_update(loss, *arguments, **kwargs)
        return loss

    def optimizer_pre_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Call every enabled modifier right before the optimizer's step."""
        if not (self._initialized and self._enabled):
            self._require_active("optimizer_pre_step")
        for modifier in self._members:
            if modifier._enabled:
                modifier.optimizer_pre_step(module, optimizer, epoch, steps_per_epoch)

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Call every enabled modifier right after the optimizer's step."""
        if not (self._initialized and self._enabled):
            self._require_active("optimizer_post_step")
        for modifier in self._members:
            if modifier._enabled:
                modifier.optimizer_post_step(module, optimizer, epoch, steps_per_epoch)
        if steps_per_epoch > 0 and epoch < math.inf:
            steps = round(epoch * steps_per_epoch) + 1
            self.position = Position(steps, epoch_of_step(steps, steps_per_epoch), steps_per_epoch)
        self._stepped = True

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every modifier by its identifier; if staged, by stage before that.

        Once training has begun, the key ``__progress__`` holds what else a run needs to go on as
        if it had not stopped. Everything in it can be saved by ``torch.save`` and loaded with
        ``weights_only=True``.
        """
        state = progress.collect(self._modifiers, lambda modifier: modifier.state_dict())
        if self._initialized and self._has_progress:
            position = self.position
            state[progress.PROGRESS_KEY] = {
                **({} if position is None else position._asdict()),
                "modifiers": progress.collect(self._modifiers, lambda m: m.progress_state()),
            }
        return state

    def load_structure_state(self, module: Module, state: Mapping[str, Any]) -> None:
        """Give ``module`` the layers that it had when :meth:`state_dict` was taken.

        To be called before the model's weights are loaded; ``load_checkpoint`` does so.

        :raises RuntimeError: if the state is of a run, and the manager is not initialised
        """
        if progress.PROGRESS_KEY in state:
            self._require_initialized("load_structure_state")
            progress.restore(
                self._modifiers,
                state[progress.PROGRESS_KEY]["modifiers"],
                lambda modifier, part: modifier.load_structure_state(module, part),
            )

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Restore :meth:`state_dict`, step count included.

        A state of SparseML 1.x under an identifier that no modifier has is taken for that of the
        only modifier of its class without one, with a warning: it may be the same recipe in other
        words. The state of a run that has begun is only for the very same recipe.

        :param strict: demand that the state is of these very modifiers
        :raises IndexError: with ``strict``, on missing or unknown modifiers or stages
        :raises RuntimeError: if the state is of a run, and the manager is not initialised
        """
        state = dict(state_dict)
        run = state.pop(progress.PROGRESS_KEY, None)
        if run is not None:
            self._require_initialized("load_state_dict")
        else:
            state = progress.with_known_keys(self._modifiers, state)
        if strict:
            progress.check_keys(self._modifiers, state)
        progress.restore(self._modifiers, state, lambda m, part: m.load_state_dict(part, strict))
        if run is None:
            return
        progress.restore(
            self._modifiers, run["modifiers"], lambda m, part: m.load_progress_state(part)
        )
        self._has_progress = True
        found = {name: run[name] for name in Position._fields if name in run}
        self.position = Position(**found) if found else None
        driver = None if self._driver is None else self._driver()
        if driver is not None and self.position is not None:
            driver.resume(self.position)
        self._resumes = driver is None

    def _groups(self) -> list[list[Any]]:
        if isinstance(self._modifiers, Mapping):
            return list(self._modifiers.values())
        return [[modifier] for modifier in self._modifiers]
