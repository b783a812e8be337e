"""A recipe that a trainer of fairseq follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sparseml.fairseq.checkpoints import load_packed_state, packed_state
from sparseml.fairseq.errors import FairseqError
from sparseml.fairseq.fitting import (
    Length,
    require_fitting_length,
    require_fitting_model,
    require_shrinkable,
    require_supported,
    shrinking,
)
from sparseml.fairseq.masters import MasterOptimizer, final_gradients, masters_of
from sparseml.fairseq.rates import Rates
from sparseml.fairseq.report import TrainedRun
from sparseml.fairseq.sampling import grad_sampler
from sparseml.fairseq.shrunk import make_shrinkable
from sparseml.fairseq.teaching import teach, teacher_of
from sparseml.pytorch.optim import StepDriver
from sparseml.pytorch.utils.saving.files import CheckpointError
from sparseml.run.errors import Ending, RunError, Stopped, one_line, signal_asked
from sparseml.run.fitting import load_recipe
from sparseml.run.masks import (
    MASKS_FILE,
    carry_masks,
    mask_weights,
    masks_in_force,
    masks_of_run,
    write_masks,
)
from sparseml.run.processes import Processes, require_same_everywhere
from sparseml.utils.locks import FolderLock

_LOGGER = logging.getLogger(__name__)


class RecipeRun:
    """Carries the manager of a recipe through the training of a ``fairseq.trainer.Trainer``.

    Modifiers act around each ``task.optimizer_step``, which is once for each update, however many
    batches make one. Updates that fairseq leaves out, as after an overflow, do not count. What is
    due when the run ends is done after its last update, before that is saved.

    :param trainer: whose checkpoint, if any, is loaded
    :param iterator: fairseq's, over the epochs of the training data
    :param state: of the recipe, from the checkpoint; None to begin at its start
    :param loaded: whether there was a checkpoint
    :param teacher: weights of one for recipes that teach; None for the model as it begins
    :raises RecipeError: if anything is wrong with the recipe
    :raises RunError: for a recipe, model, checkpoint or setting that do not fit together
    """

    def __init__(
        self,
        trainer: Any,
        iterator: Any,
        state: Mapping[str, Any] | None,
        loaded: bool,
        teacher: Mapping[str, Tensor] | None = None,
    ) -> None:
        common = trainer.cfg.common
        self.trainer, self.recipe = trainer, str(common.sparseml_recipe)
        require_supported(trainer.cfg)
        self.manager = load_recipe(self.recipe, common.get("sparseml_recipe_args"))
        require_same_everywhere({"the recipe": str(self.manager), "--seed": common.seed})
        self.model = trainer.get_model()
        require_fitting_model(self.manager, self.model, self.recipe)
        self._iterator = iterator
        self._batches_of = (state or {}).get("batches_of") or iterator.next_epoch_idx
        self._length = Length(trainer.cfg, iterator, trainer.get_num_updates())
        self._closed = False
        steps = self._length.updates_in(iterator.next_epoch_idx)
        require_same_everywhere({"the number of updates in an epoch": steps})
        self._masters = masters_of(trainer.optimizer)
        stepping = trainer.optimizer.optimizer
        self.optimizer: Any = stepping
        if self._masters:
            self.optimizer = MasterOptimizer(stepping, self._masters)
        self._teacher: Any = None
        if any(one.changes_loss for one in self.manager.iter_modifiers()):
            self._teacher = teacher_of(trainer, teacher)
        self._initialize(steps)
        self._observes = any(
            getattr(one, "_observes", False) for one in self.manager.iter_modifiers()
        )
        self.driver = StepDriver(self.model, self.optimizer, self.manager, steps, compared=True)
        if state is None and common.get("sparseml_initial_masks"):
            self._take(str(common.sparseml_initial_masks))
        if state is not None:
            load_packed_state(self.manager, state, self.recipe)
        elif loaded:
            _LOGGER.warning(
                "%s begins at its start: the checkpoint gives the weights, but no state of a "
                "recipe to go on with", self.recipe,
            )  # fmt: skip
        self._release = self._lock()
        self._ends = self.driver.position.epoch + self._length.epochs
        require_fitting_length(self.manager, self.driver.position, self._ends, self.recipe)
        self._rates = Rates(trainer, self.manager, self.recipe, state)
        self._hook(trainer)
        self._report: TrainedRun | None = None
        if folder := common.get("sparseml_output"):
            goes_on = state is not None
            self._report = TrainedRun(trainer, self.manager, Path(folder), steps, goes_on)
        self._stop_between_updates(trainer)  # last, as a report tells of an update first

    @property
    def is_sparse(self) -> bool:
        """Whether all modifiers have asked for what they ask for in the end."""
        ends = [float(one.end_epoch) for one in shrinking(self.manager)]
        return self.manager.summary().sparse and self.driver.position.epoch >= max(ends, default=0)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs of the recipe, as plain data and tensors."""
        kept = getattr(self.trainer.task, "dataset_to_epoch_iter", {}).values()
        is_kept = any(one is self._iterator for one in kept)
        return {
            **packed_state(self.manager),
            "rates": self._rates.state(),
            "batches_of": self._batches_of if is_kept else None,
            "teacher": None if self._teacher is None else self._teacher.state_dict(),
        }

    def validated(self, loss: float | None) -> None:
        """Take note of the loss of a validation."""
        if self._report is not None:
            self._report.validated(loss)

    def finish(self) -> None:
        """End the recipe, and write the report; a warning tells if its end was not reached."""
        if self._report is not None:
            self._report.finish()
        _LOGGER.info("%s", self.manager.summary())
        keeping = self.trainer.cfg.checkpoint
        if self.trainer.is_data_parallel_master and not keeping.no_save:
            write_masks(Path(keeping.save_dir) / MASKS_FILE, masks_in_force(self.manager))
        self.manager.finalize(self.model)
        self._release()

    def ending(self) -> Ending:
        """Return how to go on with this run if it ends now."""
        keeping = self.trainer.cfg.checkpoint
        last = Path(keeping.save_dir) / f"checkpoint_last{self.trainer.checkpoint_suffix}.pt"
        goes_on = f"the same command goes on from {last}"
        return Ending(None, goes_on if last.exists() else "no checkpoint was written yet")

    def failed(self, error: BaseException) -> None:
        """Note that the run ends by an error or a signal."""
        if self._report is not None:
            self._report.failed(error)
        self._release()

    def _lock(self) -> Callable[[], None]:
        """Keep other processes from writing checkpoints; return what ends that."""
        keeping = self.trainer.cfg.checkpoint
        if keeping.no_save or not self.trainer.is_data_parallel_master:
            return lambda: None
        return FolderLock(keeping.save_dir).release

    def _stop_between_updates(self, trainer: Any) -> None:
        """Save and end after an update where a signal asks for it, and nothing else is due."""
        cfg, train_step = trainer.cfg, trainer.train_step
        where = Processes(
            trainer.data_parallel_rank, trainer.data_parallel_world_size, trainer.device
        )
        due = cfg.dataset.validate_interval_updates, cfg.checkpoint.save_interval_updates

        def step(*args: Any, **kwargs: Any) -> Any:
            result = train_step(*args, **kwargs)
            signal, done = where.largest(signal_asked()), trainer.get_num_updates()
            busy = self._closed or any(every > 0 and done % every == 0 for every in due)
            if signal and not busy and not self._iterator.end_of_epoch():
                from fairseq import checkpoint_utils

                checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, self._iterator, None)
                raise Stopped(signal)
            return result

        trainer.train_step = step

    def _initialize(self, steps: int) -> None:
        """Give the manager the model and what its modifiers ask for."""
        if found := shrinking(self.manager):
            resizes = any(one.resizes for one in found)
            require_shrinkable(self.trainer.cfg, bool(self._masters), resizes, self.recipe)
            make_shrinkable(self.model)
        lent = grad_sampler(self.trainer, self.manager, self.recipe)
        if self._teacher is not None:
            lent["distillation_teacher"] = self._teacher
        try:
            self.manager.resolve_steps(steps)
            copies = {master.param: master.copy() for master in self._masters}
            self.manager.initialize(self.model, 0.0, masters=copies, **lent)
        except (RuntimeError, ValueError) as error:
            raise FairseqError(f"{self.recipe}: {one_line(error)}") from error

    def _take(self, masks: str) -> None:
        """Begin with the masks of another run."""
        try:
            found = masks_of_run(masks)
            mask_weights(self.model, found)
            carry_masks(self.manager, found)
        except (CheckpointError, RunError) as error:
            text = one_line(error).replace("--initial-masks", "--sparseml-initial-masks")
            raise FairseqError(text) from error

    def _hook(self, trainer: Any) -> None:
        optimizer_step, train_step = trainer.task.optimizer_step, trainer.train_step
        begin_epoch, get_train_iterator = trainer.begin_epoch, trainer.get_train_iterator

        def step(*args: Any, **kwargs: Any) -> Any:
            if self._observes:
                final_gradients(trainer.optimizer, self._masters)
            self.driver.before_step()
            result = optimizer_step(*args, **kwargs)
            self.driver.after_step()
            return result

        def train(*args: Any, **kwargs: Any) -> Any:
            result = train_step(*args, **kwargs)
            if not self._closed and self._is_over():
                self._close()
            return result

        def begin(epoch: int) -> Any:
            self._begin_epoch(epoch)
            return begin_epoch(epoch)

        def iterate(epoch: int, *args: Any, **kwargs: Any) -> Any:
            iterator = get_train_iterator(epoch, *args, **kwargs)
            if iterator is not self._iterator:
                self._iterator, self._batches_of = iterator, epoch
            return iterator

        if self._teacher is not None:
            teach(trainer.get_criterion(), lambda: self.driver)
        trainer.task.optimizer_step, trainer.train_step = step, train
        trainer.begin_epoch, trainer.get_train_iterator = begin, iterate
        self._let_early_stopping_wait(trainer)
        self._rates.hook()

    def _let_early_stopping_wait(self, trainer: Any) -> None:
        """Let ``--patience`` begin with the first validation of a model that is sparse."""
        settings, begin = trainer.cfg.checkpoint, trainer.begin_valid_epoch
        patience, settings.patience = settings.patience, -1

        def begin_valid_epoch(epoch: int) -> Any:
            if settings.patience != patience and self.is_sparse:
                settings.patience = patience
            return begin(epoch)

        trainer.begin_valid_epoch = begin_valid_epoch

    def _begin_epoch(self, epoch: int) -> None:
        """Count on with the number of updates that this epoch has."""
        steps = self._length.updates_in(epoch, len(self._iterator))
        if steps != self.driver.position.steps_per_epoch:
            position = self.driver.position
            self.driver = StepDriver(
                self.model, self.optimizer, self.manager, steps, position.epoch
            )

    def _is_over(self) -> bool:
        settings = self.trainer.cfg.optimization
        if settings.max_update and self.trainer.get_num_updates() >= settings.max_update:
            return True
        is_last = bool(settings.max_epoch) and self._iterator.epoch >= settings.max_epoch
        return is_last and self._iterator.end_of_epoch()

    def _close(self) -> None:
        """Do what is due at the end of the run, where no update follows."""
        self._closed = True
        _, epoch, steps = self.driver.position
        end = max(epoch, self._ends)
        if any(
            one.enabled and one.update_ready(end, steps) for one in self.manager.iter_modifiers()
        ):
            self.manager.update(self.model, self.optimizer, end, steps)
