"""Training a model while a recipe prunes it: gradually, or in one shot before fine-tuning.

The run directory is ``<output>/<experiment>``: arguments, recipe, metrics as JSON lines and as
``summary.csv``, in ``checkpoints/`` the last state (to ``--resume`` from) and the best one of each
sparsity, and at the end the weights, what was measured and ``report.html``.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from sparseml.pytorch.utils.logger import BaseLogger
from sparseml.pytorch.utils.params import parameter_count
from sparseml.report import RunDirectory
from sparseml.run.batch_norm import retune_batch_norm
from sparseml.run.checkpoints import Checkpoints, RunIdentity, find_checkpoint, last_checkpoints
from sparseml.run.errors import Ending, RunError, Stopped, ending_told
from sparseml.run.fitting import foretell, load_recipe, require_steady_shapes
from sparseml.run.logs import EpochLog, service_loggers
from sparseml.run.masks import (
    carry_masks,
    mask_weights,
    masked_sparsity,
    masks_in_force,
    masks_of_run,
    tell_carried,
)
from sparseml.run.processes import (
    prepare,
    processes,
    require_same_everywhere,
    started_together,
)
from sparseml.run.progress import say
from sparseml.run.results import (
    describe_dense,
    experiment_folder,
    experiment_name,
    start_run,
    write_outcome,
    write_page,
)
from sparseml.run.session import Found, Glue, Session, Training, TrainingRunSettings
from sparseml.run.sweep import Pruned
from sparseml.utils.locks import FolderLock

LATENCY_ROUNDS = 10


def run_training(settings: TrainingRunSettings, glue: Glue) -> None:
    """Set up, train, and write what came of it.

    :raises RunError: for what does not fit, and files that cannot be written
    """
    prepare(settings.run.seed, settings.run.threads)
    # what is cheap to find out comes before models and data
    asked = settings.run
    recipe = load_recipe(asked.sparseml_recipe, asked.recipe_args, asked.effort)
    # also before the others are waited for
    require_steady_shapes(recipe, settings.run.sparseml_recipe, started_together())
    keeping = settings.checkpoints
    resumed = find_checkpoint(keeping.resume) if keeping.resume else None
    carried = keeping.initial_masks if resumed is None else None
    masks = masks_of_run(carried) if carried else {}
    with processes(settings.run.device, settings.run.timeout) as where:
        identity = RunIdentity.of(settings, where)
        require_same_everywhere({"the recipe": str(recipe), **identity.values})
        session = glue.open_session(settings, where)
        run = _Run(session, settings, glue, resumed, masks, identity)
        with ending_told(run.ending):
            run.run()


class _Run:
    """One training run and its files."""

    def __init__(
        self,
        session: Session,
        settings: TrainingRunSettings,
        glue: Glue,
        resumed: Path | None,
        masks: Mapping[str, Tensor],
        identity: RunIdentity,
    ) -> None:
        self.session, self.settings, self.where = session, settings, session.where
        self.folder = experiment_folder(settings.run, session.model_name)
        self.resumed = resumed
        if resumed is not None and not settings.run.experiment:
            self.folder = _folder_of(resumed, self.folder)
        self.loggers: list[BaseLogger] = []
        self.directory: RunDirectory | None = None
        self.best: dict[str, Any] = {}
        self.done, self.saved = 0, "its last checkpoint"
        self.training = self._set_up(glue, masks)
        self.epochs = EpochLog(
            session, self.training, settings.checkpoints, self.folder, self.loggers
        )
        extras = {} if self.training.averaged is None else {"ema": self.training.averaged}
        self.checkpoints = Checkpoints(
            self.folder / "checkpoints",
            session.model_name,
            session.model,
            self.where,
            self.training.parts,
            extras,
            identity,
        )

    def _set_up(self, glue: Glue, masks: Mapping[str, Tensor]) -> Training:
        mask_weights(self.session.model, masks)
        training = glue.set_up_training(self.session, self.settings, self.loggers, self._log)
        recipe, averages = self.settings.run.sparseml_recipe, training.averaged is not None
        require_steady_shapes(training.manager, recipe, averages=averages)
        require_same_everywhere(
            {
                "the number of training data": self.session.training_size,
                "steps_per_epoch": training.steps_per_epoch,
            }
        )
        taken, per_epoch = carry_masks(training.manager, masks), training.steps_per_epoch
        steps = per_epoch * training.epochs
        if self.where.is_first:
            tell_carried(taken, per_epoch, steps)
        foretell(training.manager, self.session, self.settings.run, per_epoch, steps)
        return training

    def run(self) -> None:
        """Train all epochs that are left."""
        dense = copy.deepcopy(self.session.model)  # also of what a checkpoint makes smaller
        with contextlib.ExitStack() as stack:
            if self.resumed is not None:
                self._hold_folder(stack)
                self._resume(self.resumed)
            if self.where.is_first:
                self._open_directory(stack)
            variant = self._dense_variant()
            for epoch in range(self.done, self.training.epochs):
                self._epoch(epoch)
            model, manager = self.session.model, self.training.manager
            pruned = Pruned(None, model, manager, masks_in_force(manager))
            manager.finalize(self.training.model)
            if self.directory is not None:
                found, rounds = self.epochs.last_found(), LATENCY_ROUNDS
                write_outcome(self.directory, self.session, pruned, found, variant, dense, rounds)
        if self.directory is not None:  # which now says that the run has finished
            write_page([self.folder], self.folder, self.settings.run)

    def ending(self) -> Ending:
        """Return how to go on with this run if it ends now."""
        goes_on = "no checkpoint was written yet" if self.training.steps else ""
        if last_checkpoints(self.checkpoints.folder):
            goes_on = f"--resume {self.folder} goes on from {self.saved}"
        return Ending(self.folder if self.where.is_first else None, goes_on)

    def _epoch(self, epoch: int) -> None:
        training, session = self.training, self.session
        before = (getattr(training, "begun", None) or {}).get(
            "sparsity", masked_sparsity(training.manager)
        )
        size, name = parameter_count(session.model), f"epoch {epoch + 1}/{training.epochs}"
        try:
            trained = training.epoch(epoch, name)
        except Stopped:
            self._save_begun()
            raise
        changed = (trained["sparsity"], parameter_count(session.model)) != (before, size)
        if changed and self.settings.run.bn_retune:
            batches = session.training_batches()
            retune_batch_norm(session.model, batches, self.settings.run.bn_retune, self.where)
        found = session.evaluate(session.model, f"{name} evaluating")
        row = self.epochs.row(epoch, trained, found)
        if training.averaged is not None:
            averaged = session.evaluate(training.averaged, f"{name} average")
            row.update({f"ema/{key}": value for key, value in averaged.items()})
        training.after_epoch(epoch, found)
        self.done = epoch + 1
        if self.where.is_first:
            self.epochs.tell(row, changed)
        self._keep(row)  # last, as a run that goes on from it does not tell of this epoch again

    def _keep(self, row: dict[str, Any]) -> None:
        """Write the checkpoints that are due."""
        keeping, telling = self.settings.checkpoints, self.session.metrics[0]
        level, reached = f"{row['sparsity']:.2f}", row[f"eval/{telling.name}"]
        # a model that has lost units is another one, whatever the whole one could do
        now = {"level": level, "parameters": parameter_count(self.session.model)}
        other = any(self.best.get(key) != value for key, value in now.items())
        paths = [self.checkpoints.last] if keeping.save_last else []
        if other or telling.betters(reached, self.best[telling.name]):
            self.best = {**now, telling.name: reached, "epoch": row["epoch"]}
            paths.append(self.checkpoints.best(row["sparsity"]))
        if keeping.checkpoint_freq > 0 and self.done % keeping.checkpoint_freq == 0:
            paths.append(self.checkpoints.of_epoch(row["epoch"]))
        self._save(paths)

    def _save_begun(self) -> None:
        """Write a checkpoint in the middle of an epoch."""
        begun = getattr(self.training, "begun", None)
        if begun is not None and self.settings.checkpoints.save_last:
            self._save([self.checkpoints.last], begun)

    def _save(self, paths: list[Path], begun: dict[str, Any] | None = None) -> None:
        progress = {"history": self.epochs.rows, "best": self.best}
        self.checkpoints.save(paths, self.done, progress, begun)
        if self.checkpoints.last in paths:
            self.saved = f"epoch {self.done + 1}" + (
                f", step {begun['steps'] + 1}" if begun else ""
            )

    def _log(self, step: int, values: Found) -> None:
        for logger in self.loggers:
            logger.log_scalars("train", values, step=step)

    def _hold_folder(self, stack: contextlib.ExitStack) -> None:
        """Let no other run write there; before reading, which puts aside damaged checkpoints."""
        if self.where.is_first and self.folder.is_dir():
            stack.callback(FolderLock(self.folder).release)
        self.where.gather(None)  # all wait for the lock

    def _resume(self, path: Path) -> None:
        training, anew = self.training, self.settings.checkpoints.no_resume_opt
        self.done, progress, begun = self.checkpoints.load(path, not anew)
        self.epochs.rows, self.best = progress["history"], progress["best"]
        if begun is not None:
            training.begun = begun
        if anew:
            training.skip_to(self.done, self.epochs.last_found())
        if self.done > training.epochs:
            raise RunError(f"--resume {path} has {self.done} epochs behind it, the run has fewer")
        if self.where.is_first:
            say(f"resumed from {path} after {self.done} epochs, {training.steps} steps")

    def _open_directory(self, stack: contextlib.ExitStack) -> None:
        run, config, session = self.settings.run, self.settings.values(), self.session
        self.directory = None if self.resumed is None else RunDirectory.resume(self.folder)
        goes_on = self.directory is not None
        if self.directory is None:
            name = experiment_name(run, session.model_name)
            self.directory = start_run(self.folder, run, config, session.packages, name)
        stack.enter_context(self.directory)
        steps = self.training.steps if self.resumed is not None else None
        services = stack.enter_context(service_loggers(run, config, self.folder, goes_on))
        self.loggers += [self.directory.metrics(steps), *services]
        self.training.manager.initialize_loggers(self.loggers)
        self.directory.write_recipe(self.training.manager, self.training.steps_per_epoch)
        self.epochs.write_settings(config)

    def _dense_variant(self) -> Any:
        if self.resumed is not None:
            return None
        found = self.session.evaluate(self.session.model, "before training")
        if self.directory is None:
            return None
        say(f"before training: {self.session.metrics[0].text(found)}")
        variant = describe_dense(self.session, found)
        self.directory.write_result({"dense": variant})
        return variant


def _folder_of(checkpoint: Path, otherwise: Path) -> Path:
    above = checkpoint.absolute().parent
    above = above.parent if above.name == "checkpoints" else above
    return above if (above / "run.json").exists() else otherwise
