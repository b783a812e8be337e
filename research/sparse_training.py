"""Train a model while a recipe prunes it: gradually, or in one shot before fine-tuning.

    python research/sparse_training.py -c configs/light1.yaml --model deit_tiny_patch16_224 \\
        --data-dir imagenet --sparseml-recipe recipes/timm/gradual/cap/vit.yaml

The run directory is ``<output>/<experiment>``: arguments, recipe, metrics as JSON lines and as
``summary.csv``, in ``checkpoints/`` the last state (to ``--resume`` from) and the best one of each
sparsity, and at the end the weights, what was measured and ``report.html``.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import logging
import sys
from pathlib import Path
from typing import Any

import yaml

from sparseml.pytorch.utils import BaseLogger, ModuleSparsificationInfo, WANDBLogger
from sparseml.report import RunDirectory
from sparseml.run.masks import masks_in_force
from sparseml.run.results import (
    LATENCY_BATCH,
    describe_dense,
    experiment_folder,
    start_run,
    write_latency,
    write_outcome,
    write_page,
)
from sparseml.run.service_logs import log_histograms, service_loggers
from sparseml.timm import (
    IGNORED_SETTINGS,
    Checkpoints,
    RunError,
    Training,
    atomic_text,
    find_checkpoint,
    masked_sparsity,
    open_session,
    parse,
    prepare,
    processes,
    retune_batch_norm,
    run_reported,
    run_settings,
    say,
    set_up_training,
    training_parser,
    write_masks,
)

LATENCY_ROUNDS = 10
Found = dict[str, float]


def main() -> None:
    """Set up, train, and write what came of it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = training_parser((__doc__ or "").partition("\n")[0])
    args, given = parse(parser, sys.argv[1:], IGNORED_SETTINGS)
    prepare(args)
    with processes(args.device, args.timeout) as where:
        if not where.is_first:
            logging.getLogger().setLevel(logging.WARNING)
        session = open_session(args, where)
        Run(session, given).run()


class Run:
    """One training run and its files."""

    def __init__(self, session: Any, given: set[str]) -> None:
        self.session, self.args, self.where = session, session.args, session.where
        self.folder = experiment_folder(self.args)
        self.resumed = find_checkpoint(self.args.resume) if self.args.resume else None
        if self.resumed is not None and not self.args.experiment:
            self.folder = _folder_of(self.resumed, self.folder)
        self.loggers: list[BaseLogger] = []
        self.directory: RunDirectory | None = None
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        self.done = 0
        self.training: Training = set_up_training(session, given, self.loggers, self._log)
        self.trainer = self.training.trainer
        self.checkpoints = self._checkpoints()

    def run(self) -> None:
        """Train all epochs that are left."""
        if self.resumed is not None:
            self._resume(self.resumed)
        with contextlib.ExitStack() as stack:
            if self.where.is_first:
                self._open_directory(stack)
            dense = copy.deepcopy(self.session.model) if self.resumed is None else None
            variant = self._dense_variant()
            self._train()
            if self.directory is not None:
                self._finish(variant, dense)

    def _train(self) -> None:
        for epoch in range(self.done, self.training.epochs):
            self._epoch(epoch)
        self.masks = masks_in_force(self.trainer.manager)
        self.trainer.manager.finalize(self.trainer.model)

    def _epoch(self, epoch: int) -> None:
        before = masked_sparsity(self.trainer.manager)
        name = f"epoch {epoch + 1}/{self.training.epochs}"
        train = self.trainer.epoch(epoch, self.training.loader, name)
        if self.args.dist_bn:
            self.where.average_buffers(self.session.model)
        changed = train["sparsity"] != before
        if changed and self.args.bn_retune:
            batches = self.session.plain_batches(self.args.batch_size)
            retune_batch_norm(self.session.model, batches, self.args.bn_retune, self.where)
        found = self.session.evaluate(self.session.model, f"{name} evaluating")
        row = self._row(epoch, train, found)
        if self.trainer.ema is not None:
            averaged = self.session.evaluate(self.trainer.ema.module, f"{name} average")
            row |= {f"ema/{key}": value for key, value in averaged.items()}
        if self.trainer.scheduler is not None:
            self.trainer.scheduler.step(epoch + 1, found["top1"])
        self.done = epoch + 1
        self._keep(row)
        if self.where.is_first:
            self._tell(row, changed)

    def _row(self, epoch: int, train: Found, found: Found) -> dict[str, Any]:
        info = ModuleSparsificationInfo(self.session.model)
        return {
            "epoch": epoch,
            "train/loss": train["loss"],
            **{f"eval/{key}": value for key, value in found.items()},
            "lr": train["lr"],
            "sparsity": train["sparsity"],
            "images_per_second": train["images_per_second"],
            "total": info.params_total,
            "sparse": info.params_sparse,
            "sparsity_percent": info.params_sparse_percent,
            "prunable": info.params_prunable_total,
            "prunable_sparse": info.params_prunable_sparse,
            "prunable_sparsity_percent": info.params_prunable_sparse_percent,
        }

    def _keep(self, row: dict[str, Any]) -> None:
        """Write the checkpoints that are due."""
        self.history.append(row)
        level, top1 = f"{row['sparsity']:.2f}", row["eval/top1"]
        paths = [self.checkpoints.last] if self.args.save_last else []
        if self.best.get("level") != level or top1 > self.best["top1"]:
            self.best = {"level": level, "top1": top1, "epoch": row["epoch"]}
            paths.append(self.checkpoints.best(row["sparsity"]))
        if self.args.checkpoint_freq > 0 and self.done % self.args.checkpoint_freq == 0:
            paths.append(self.checkpoints.of_epoch(row["epoch"]))
        self.checkpoints.save(paths, self.done, {"history": self.history, "best": self.best})

    def _tell(self, row: dict[str, Any], changed: bool) -> None:
        say(
            f"epoch {row['epoch'] + 1}/{self.training.epochs}  train loss {row['train/loss']:.4f}  "
            f"top1 {row['eval/top1']:.2%}  sparsity {row['sparsity']:.2%}  lr {row['lr']:.3g}"
        )
        numbers = {key: value for key, value in row.items() if key != "epoch"}
        for logger in self.loggers:
            content = row if isinstance(logger, WANDBLogger) else numbers
            logger.log_scalars("epoch", content, step=self.trainer.last_step)
        with atomic_text(self.folder / "summary.csv") as file:
            writer = csv.DictWriter(file, list(self.history[-1]), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.history)
        if self.args.log_sparsity and changed:
            self._write_distribution(row["epoch"])
        if self.args.log_param_histogram:
            step = self.trainer.last_step
            log_histograms(self.loggers, self.session.model, row["epoch"], step)

    def _write_distribution(self, epoch: int) -> None:
        info = ModuleSparsificationInfo(self.session.model)
        summary = {key: value for key, value in self.history[-1].items() if "/" not in key}
        content = {"params_summary": summary, "params_info": info.params_info}
        with atomic_text(self.folder / f"sparsity_distribution_epoch={epoch}.json") as file:
            json.dump(content, file, indent=2)

    def _log(self, step: int, values: Found) -> None:
        for logger in self.loggers:
            logger.log_scalars("train", values, step=step)

    def _checkpoints(self) -> Checkpoints:
        trainer = self.trainer
        parts = {"optimizer": trainer.inner, "manager": trainer.manager}
        parts |= {"scheduler": trainer.scheduler, "scaler": trainer.scaler}
        extras = {} if trainer.ema is None else {"ema": trainer.ema.module}
        folder, name = self.folder / "checkpoints", self.session.model_name
        settings = run_settings(self.args, self.where)
        return Checkpoints(folder, name, self.session.model, self.where, parts, extras, settings)

    def _resume(self, path: Path) -> None:
        self.done, progress = self.checkpoints.load(path, not self.args.no_resume_opt)
        self.history, self.best = progress["history"], progress["best"]
        if self.args.no_resume_opt and self.trainer.scheduler is not None:
            self.trainer.scheduler.step(self.done, self.history[-1]["eval/top1"])
            self.trainer.scheduler.step_update(self.trainer.steps)
        if self.done > self.training.epochs:
            raise RunError(f"--resume {path} has {self.done} epochs behind it, the run has fewer")
        if self.where.is_first:
            say(f"resumed from {path} after {self.done} epochs, {self.trainer.steps} steps")

    def _open_directory(self, stack: contextlib.ExitStack) -> None:
        name, recipe = self.session.model_name, Path(self.args.sparseml_recipe).stem
        goes_on = self.resumed is not None and (self.folder / "run.json").exists()
        if goes_on:
            self.directory = RunDirectory(self.folder)
        else:
            self.directory = start_run(self.folder, self.args, self.folder.name, f"{name} {recipe}")
        stack.enter_context(self.directory)
        steps = self.trainer.steps if self.resumed is not None else None
        services = stack.enter_context(service_loggers(self.args, self.folder, goes_on))
        self.loggers += [self.directory.metrics(steps), *services]
        self.trainer.manager.initialize_loggers(self.loggers)
        self.directory.write_recipe(self.trainer.manager, self.training.steps_per_epoch)
        with atomic_text(self.folder / "args.yaml") as file:
            yaml.safe_dump(_plain(vars(self.args)), file)

    def _dense_variant(self) -> Any:
        if self.resumed is not None:
            return None
        found = self.session.evaluate(self.session.model, "before training")
        if self.directory is None:
            return None
        say(f"before training: top1 {found['top1']:.2%}")
        variant = describe_dense(self.session, found)
        self.directory.write_result({"dense": variant})
        return variant

    def _finish(self, variant: Any, dense: Any) -> None:
        assert self.directory is not None
        found = {key: self.history[-1][f"eval/{key}"] for key in ("top1", "top5", "loss")}
        model, manager = self.session.model, self.trainer.manager
        write_outcome(self.directory, self.session, manager, variant, model, found)
        write_masks(self.folder / "masks.safetensors", self.masks)
        if dense is not None:
            images = self.session.sample_images(LATENCY_BATCH)
            write_latency(self.directory, dense, model, images, LATENCY_ROUNDS)
        write_page([self.folder], self.folder, self.args)


def _folder_of(checkpoint: Path, otherwise: Path) -> Path:
    above = checkpoint.absolute().parent
    above = above.parent if above.name == "checkpoints" else above
    return above if (above / "run.json").exists() else otherwise


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


if __name__ == "__main__":
    sys.exit(run_reported(main))
