"""A recipe in a ``transformers.Trainer``: one callback, and nothing subclassed."""

from __future__ import annotations

import contextlib
import logging
import os
import weakref
from typing import Any

from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from sparseml.pytorch.optim import ScheduledModifierManager, StepDriver
from sparseml.pytorch.optim.summary import RunSummary
from sparseml.pytorch.sparsification.distillation.teacher import needing_teacher
from sparseml.pytorch.sparsification.modifier import Loggers
from sparseml.pytorch.units.origins import origins_of
from sparseml.pytorch.units.saved import fill_shrunk, holds_shrunk, write_structure
from sparseml.pytorch.utils.distributed import difference, gather_objects
from sparseml.pytorch.utils.params import parameter_count
from sparseml.run.errors import StoppingLoop, one_line, signal_asked
from sparseml.run.processes import Processes
from sparseml.transformers.checkpoints import (
    checkpoint_folder,
    read_state,
    resumed_from,
    write_recipe,
    write_state,
)
from sparseml.transformers.errors import CallbackError
from sparseml.transformers.fitting import (
    require_fitting_length,
    require_fitting_model,
    require_supported,
    steps_in_epoch,
)
from sparseml.transformers.lent import gradient_sampler, lift_masks, teacher_of
from sparseml.transformers.loss import LossCarrier, loss_modifiers
from sparseml.transformers.rates import Rates
from sparseml.utils.locks import FolderLock

_LOGGER = logging.getLogger(__name__)


class SparseMLCallback(TrainerCallback):
    """Runs a recipe in a ``transformers.Trainer``.

    .. code-block:: python

        callback = SparseMLCallback("recipe.yaml", teacher="folder_of_a_dense_model")
        trainer = Trainer(model, args, train_dataset=data, callbacks=[callback])
        trainer.train()

    Modifiers act at optimizer steps, so that accumulated gradients and steps that a gradient scaler
    leaves out move no schedule; evaluation changes nothing. Every checkpoint of the Trainer holds
    the state of the recipe, and ``trainer.train(resume_from_checkpoint=True)`` goes on from it.
    After a signal (Ctrl-C, SIGTERM, SIGHUP) the Trainer saves a checkpoint after the step that is
    being taken, and the process ends with the status 128 and the number of the signal.

    :param recipe: a file, the text of a recipe, or a manager
    :param recipe_args: values for variables of the recipe: a mapping, JSON, or ``name=value,...``
    :param teacher: to distil from: a module, the folder of a model, ``"self"`` for a copy of the
        student as it is when distillation starts, or ``"disable"``
    :param loggers: where modifiers log to
    :param steps_per_epoch: optimizer steps that make an epoch of the recipe; by default as the
        Trainer counts, which takes all ``max_steps`` for one epoch of data without a length
    :param resume_from: the folder of the checkpoint that is given to ``trainer.train``, if it is
        not in ``output_dir``, or of a model that has lost units by then
    :param best_when_sparse: let ``load_best_model_at_end`` and early stopping consider only what
        is as sparse as the recipe wants it to be in the end
    :raises RecipeError: if anything is wrong with the recipe
    :raises CallbackError: (a ValueError) for a teacher that is not there; in the Trainer for a
        recipe that does not fit model, run or checkpoint
    """

    def __init__(
        self,
        recipe: str | os.PathLike[str] | ScheduledModifierManager,
        recipe_args: dict[str, Any] | str | None = None,
        *,
        teacher: Any = None,
        loggers: Loggers = None,
        steps_per_epoch: int | None = None,
        resume_from: str | os.PathLike[str] | None = None,
        best_when_sparse: bool = True,
    ) -> None:
        self.recipe_name = "the recipe"
        if isinstance(recipe, ScheduledModifierManager):
            if recipe_args:
                raise CallbackError("recipe_args are for a file or text, the recipe is a manager")
            manager = recipe
        else:
            if os.path.exists(recipe):
                self.recipe_name = os.fspath(recipe)
            manager = ScheduledModifierManager.from_yaml(recipe, recipe_variables=recipe_args)
        self.manager = manager
        """The manager of the recipe: a new one in each run but the first."""
        self.driver: StepDriver | None = None
        """What counts the steps; None before and after training."""
        self.teacher = teacher_of(teacher)
        self._text = str(manager)
        self._loggers, self._resume_from = loggers, resume_from
        self._steps_per_epoch, self._best_when_sparse = steps_per_epoch, best_when_sparse
        self._carrier: LossCarrier | None = None
        self._rates: Rates | None = None
        self._lock: FolderLock | None = None
        self._trained: weakref.ref[nn.Module] | None = None  # the model of the last run
        self._used = self._forgets_best = False
        self._signals, self._stopping = StoppingLoop(_trains), 0
        self._size: int | None = None  # of the model that was evaluated last

    def summary(self) -> RunSummary:
        """Return where the run stands, to be printed."""
        return self.manager.summary()

    def save_recipe(self, folder: str | os.PathLike[str]) -> None:
        """Write ``recipe.yaml`` beside a model that was saved into ``folder``."""
        write_recipe(folder, self.manager)

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check that the recipe fits the model, which gets the sizes that it shall go on with."""
        if self._resume_from is not None and holds_shrunk(self._resume_from):
            fill_shrunk(kwargs["model"], self._resume_from)  # before the Trainer reads its weights
        require_fitting_model(self.manager, kwargs["model"], self.recipe_name)
        distilling = self.manager.distillation_modifiers
        if (needing := needing_teacher(self.manager)) and self.teacher is None:
            raise CallbackError(
                f"{type(needing[0]).__name__} of {self.recipe_name} needs a teacher: "
                "SparseMLCallback(..., teacher=...), a module, a folder, 'self' or 'disable'"
            )
        if not distilling and self.teacher is not None:
            _LOGGER.warning("%s has no distillation: the teacher is not used", self.recipe_name)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take hold of model and optimizer; of a run that goes on, also of its state."""
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        require_supported(args, model)
        self._begin_anew(model, state.global_step > 0)
        loader, name = kwargs["train_dataloader"], self.recipe_name
        steps = self._steps_per_epoch or steps_in_epoch(loader, args, state)
        told = {"the recipe": self._text, "steps_per_epoch": steps, "seed": args.seed}
        if other := difference(gather_objects(told)):
            raise CallbackError(other)
        self.manager.resolve_steps(steps)
        require_fitting_length(self.manager, steps, state, name)
        resumed = resumed_from(args, state, self._resume_from) if state.global_step else None
        self._initialize(args, state, model, loader)
        self.driver = StepDriver(model, optimizer, self.manager, steps, compared=True)
        if resumed is not None:
            read_state(resumed, self.manager, model)
        setting = self.manager.learning_rate_modifiers
        self._rates = Rates(optimizer, kwargs["lr_scheduler"], setting, name)
        if resumed is None:
            self._rates.begin()
        if loss_modifiers(self.manager):
            self._carrier = LossCarrier(model, self.driver, self.teacher)
        self._stopping = 0
        if args.should_save:
            self._lock = FolderLock(args.output_dir)
        self._signals.begin()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the search for the best model begin anew, if the last one found was not sparse."""
        if self._forgets_best:
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
            self._forgets_best = False

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the modifiers act, by the final gradients."""
        driver = self._running()
        if self._carrier is not None:
            self._carrier.require_used()
        scaler = getattr(driver.optimizer, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            with contextlib.suppress(RuntimeError):  # which says that clipping has done so
                scaler.unscale_(driver.optimizer.optimizer)
        driver.before_step()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Mask the weights, and count the step if it has happened."""
        self._running().after_step()
        if self._rates is not None:
            self._rates.before_scheduler()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the learning rate of the recipe hold; save if a signal asks for the end."""
        if self._rates is not None:
            self._rates.after_scheduler()
        where = Processes(args.process_index, args.world_size, args.device)
        asked = where.largest(signal_asked())
        # after the last step of an epoch the Trainer has yet to do what is due then
        if asked and float(state.epoch or 0.0) % 1.0 > 0.0:
            self._stopping, control.should_save = asked, True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Find out whether this model is sparse enough to be the best one, and as small."""
        before, self._size = self._size, parameter_count(kwargs["model"])
        if self.driver is not None and before not in (None, self._size):
            # a model that has lost units is another one, into which no whole one can be loaded
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None
        if self.driver is not None and self._best_when_sparse:
            self._forgets_best = not self.manager.summary().sparse

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add recipe and state to a checkpoint."""
        if self.driver is None:
            return
        # on all ranks, as weights may be shared out among them
        found = None if args.save_only_model else self.manager.state_dict()
        if args.should_save:
            folder = checkpoint_folder(args, state.global_step)
            write_recipe(folder, self.manager)
            if origins_of(kwargs["model"]):
                write_structure(kwargs["model"], folder)
            if found is not None:
                write_state(folder, self.manager, found)
        if self._stopping:
            step, anew = state.global_step, "it cannot be gone on with, by save_only_model"
            goes_on = f"resume_from_checkpoint=True goes on from step {step + 1}"
            self._signals.stop(self._stopping, anew if found is None else goes_on)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish the recipe, and write it to where ``trainer.save_model()`` saves the model."""
        if self.driver is None:
            return
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            lift_masks(self.manager)
        self._let_go()
        self._trained = weakref.ref(kwargs["model"])
        self.manager.finalize(kwargs["model"])
        if args.should_save:
            write_recipe(args.output_dir, self.manager)

    def on_push_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the recipe be pushed with the model."""
        if args.should_save:
            write_recipe(args.output_dir, self.manager)

    def _running(self) -> StepDriver:
        if self.driver is None:
            raise CallbackError(
                "the Trainer takes a step, but has not told SparseMLCallback that training has "
                "begun: give the callback to the Trainer before training"
            )
        return self.driver

    def _begin_anew(self, model: nn.Module, resumes: bool) -> None:
        """Take a fresh manager, unless this is the first run."""
        if self.driver is not None:  # the last one was interrupted, or begins with a smaller batch
            self._let_go()
            lift_masks(self.manager)
            manager: Any = self.manager
            manager.enabled = False  # it has nothing to say about its end
            manager.finalize(model)
        elif self._trained is not None and self._trained() is model and not resumes:
            _LOGGER.warning(
                "%s begins anew on a model that it has already been through: what it has pruned "
                "stays so only from where its modifiers start", self.recipe_name
            )  # fmt: skip
        if self._used:
            self.manager = ScheduledModifierManager.from_yaml(self._text)
        self._used = True

    def _let_go(self) -> None:
        self._signals.end()
        if self._lock is not None:
            self._lock.release()
        if self._carrier is not None:
            self._carrier.remove()
        self._carrier = self._rates = self.driver = self._lock = None
        self._forgets_best = False

    def _initialize(
        self, args: TrainingArguments, state: TrainerState, model: nn.Module, loader: Any
    ) -> None:
        batch_size = state.train_batch_size or args.train_batch_size
        lent = {"grad_sampler": gradient_sampler(loader, batch_size, model, args)}
        if self.teacher is not None:
            lent["distillation_teacher"] = self.teacher
        try:
            self.manager.initialize(
                model, 0.0, self._loggers if state.is_world_process_zero else None, **lent
            )
        except (RuntimeError, ValueError) as error:
            raise CallbackError(f"{self.recipe_name}: {one_line(error)}") from error


def _trains(frame: Any) -> bool:
    """Return whether a frame is within the training of a Trainer."""
    while frame is not None:
        if frame.f_code is Trainer.train.__code__:
            return True
        frame = frame.f_back
    return False
