"""The run directory of a training by fairseq itself, as other trainings leave one."""

from __future__ import annotations

import copy
import json
import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseq import utils

from sparseml.fairseq.inputs import open_split
from sparseml.fairseq.models import Loaded, plain_config
from sparseml.fairseq.session import SequenceSession
from sparseml.fairseq.settings import TranslatingSettings
from sparseml.report import RunDirectory
from sparseml.report.run_directory import RUN_FILES, is_run
from sparseml.run.errors import RunError
from sparseml.run.masks import masks_in_force
from sparseml.run.processes import Processes
from sparseml.run.results import start_run, write_outcome, write_page
from sparseml.run.settings.groups import RunSettings
from sparseml.run.sweep import Pruned
from sparseml.utils.plain import json_of

_LOGGER = logging.getLogger(__name__)
_TOLD = ("loss", "nll_loss", "ppl", "lr")


class TrainedRun:
    """Writes the run directory of a ``fairseq.trainer.Trainer`` that follows a recipe.

    Make it when the manager has been initialised, in every process; the first one writes. At every
    ``--log-interval``-th update loss and learning rate are logged, and what modifiers log.

    :param trainer: whose settings name the recipe, as ``common.sparseml_recipe``
    :param manager: of the recipe, its steps resolved
    :param folder: of the run, to be made
    :param steps_per_epoch: updates in an epoch
    :param goes_on: whether the training does, from a checkpoint
    :raises RunError: if the folder holds a run that this one does not go on with, or cannot be
        written
    """

    def __init__(
        self,
        trainer: Any,
        manager: Any,
        folder: Path,
        steps_per_epoch: int,
        goes_on: bool = False,
    ) -> None:
        self.trainer, self.manager, self.folder = trainer, manager, Path(folder).expanduser()
        self.where = Processes(
            trainer.data_parallel_rank, trainer.data_parallel_world_size, trainer.device
        )
        self.config = plain_config(trainer.cfg)
        self.settings = _run_settings(self.config["common"], self.folder)
        self._stack = ExitStack()
        if not self.where.is_first:
            return
        done = trainer.get_num_updates()
        if is_run(self.folder) and not goes_on and not self._nothing_to_lose():
            raise RunError(f"--sparseml-output {self.folder} holds a run: give another folder")
        directory = RunDirectory.resume(self.folder) if goes_on else None
        if directory is None:
            settings, name = replace(self.settings, overwrite=True), self.folder.name
            directory = start_run(self.folder, settings, self.config, (), name)
        self.directory = directory
        self._stack.enter_context(self.directory)
        self.metrics = self.directory.metrics(done if goes_on else None)
        manager.initialize_loggers([self.metrics])
        self.directory.write_recipe(manager, steps_per_epoch)
        self._hook()

    def validated(self, loss: float | None) -> None:
        """Log the loss that fairseq has found on the validation split, in bits; None for none."""
        if self.where.is_first and loss is not None:
            step = max(0, self.trainer.get_num_updates() - 1)
            self.metrics.log_scalars("eval", {"loss": float(loss)}, step=step)

    def finish(self) -> None:
        """Measure the model as it is now, in every process, and write what came of it.

        Call it before the manager is finalised: the masks in force are written, too.

        :raises RunError: if there is no validation split, and for files that cannot be written
        """
        trainer, manager = self.trainer, self.manager
        model = copy.deepcopy(trainer.get_model()).float()
        session = self._session(model)
        masks = {name: mask.clone() for name, mask in masks_in_force(manager).items()}
        found = session.evaluate(model)
        if self.where.is_first:
            pruned = Pruned(None, model, manager, masks)
            write_outcome(self.directory, session, pruned, found, None, None, 0)
            self._stack.close()
            write_page([self.folder], self.folder, self.settings)

    def failed(self, error: BaseException) -> None:
        """Note that the run ends by an error or a signal."""
        self._stack.__exit__(type(error), error, error.__traceback__)

    def _nothing_to_lose(self) -> bool:
        """Return whether the folder holds this run, which ended before its first checkpoint."""
        saved = self.config["checkpoint"]["save_dir"]
        if any(Path(saved).glob("checkpoint*.pt")):
            return False
        run, config = (self.folder / RUN_FILES[name] for name in ("run", "config"))
        try:
            known = json_of(config.read_bytes()) if config.exists() else self.config
            same = known["checkpoint"]["save_dir"] == saved
            unfinished = json_of(run.read_bytes())["status"] != "finished"
        except (KeyError, TypeError, ValueError):
            return False
        if same and unfinished:
            _LOGGER.warning(
                "%s holds a run that ended before its first checkpoint: it begins anew", self.folder
            )
        return same and unfinished

    def _session(self, model: Any) -> SequenceSession:
        trainer, config = self.trainer, self.config
        data = config["dataset"]
        history = {
            "criterion_name": type(trainer.criterion).__name__,
            "optimizer_name": type(trainer.optimizer).__name__,
            "lr_scheduler_state": trainer.lr_scheduler.state_dict(),
            "num_updates": trainer.get_num_updates(),
        }
        content = {"cfg": config, "optimizer_history": [history]}
        name = data["valid_subset"].split(",")[0]
        most = data["max_tokens_valid"] or data["max_tokens"] or 4000
        folder = Path(utils.split_paths(config["task"]["data"])[0])
        loaded = Loaded(model, trainer.task, trainer.criterion, content, folder)
        split = open_split(loaded, most, name, "--valid-subset")
        return SequenceSession(
            self.settings,
            self.where,
            model,
            self.folder.name,
            loaded,
            split,
            split,
            _translating(config["task"]),
            1,
            data["batch_size_valid"] or data["batch_size"],
        )

    def _hook(self) -> None:
        trainer, every = self.trainer, self.trainer.cfg.common.log_interval
        train_step = trainer.train_step

        def step(*args: Any, **kwargs: Any) -> Any:
            found = train_step(*args, **kwargs)
            done = trainer.get_num_updates()
            if found and every and done % every == 0:
                told = {**found, "lr": trainer.get_lr()}
                values = {name: float(told[name]) for name in _TOLD if name in told}
                self.metrics.log_scalars("train", values, step=max(0, done - 1))
            return found

        trainer.train_step = step


def _run_settings(common: dict[str, Any], folder: Path) -> RunSettings:
    return RunSettings(
        sparseml_recipe=common.get("sparseml_recipe") or "the recipe",
        recipe_args=common.get("sparseml_recipe_args"),
        output=str(folder.parent),
        experiment=folder.name,
        seed=common["seed"],
    )


def _translating(task: dict[str, Any]) -> TranslatingSettings:
    """Return how to translate, if training does: as it does."""
    if not task.get("eval_bleu"):
        return TranslatingSettings()
    search = json.loads(task["eval_bleu_args"])
    names = {"beam", "lenpen", "max_len_a", "max_len_b"} & search.keys()
    return TranslatingSettings(bleu=True, **{name: search[name] for name in names})
