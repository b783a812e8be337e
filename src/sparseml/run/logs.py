"""What runs tell on their way: a line and a row after each epoch; TensorBoard, Weights & Biases."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparseml.pytorch.utils import (
    BaseLogger,
    ModuleSparsificationInfo,
    TensorBoardLogger,
    WANDBLogger,
)
from sparseml.run.errors import RunError, one_line
from sparseml.run.files import atomic_text, write_rows
from sparseml.run.progress import say
from sparseml.run.session import Found, Session, Training
from sparseml.run.settings.groups import CheckpointSettings, RunSettings

# what is logged under these tags goes by its own name, as in summary.csv and results.csv
PREFIXES = {"epoch": "", "one_shot": "", "train": "step/"}


class PlainNamesLogger(WANDBLogger):
    """Writes to Weights & Biases under the names that CAP's scripts use, such as ``eval/top1``."""

    def emit(self, entry: Any) -> bool:
        """Record an entry; a row of a table under the names of its columns."""
        if entry.kind != "scalars" or entry.tag not in PREFIXES:
            return super().emit(entry)
        numbers = {f"{PREFIXES[entry.tag]}{name}": value for name, value in entry.content.items()}
        self.wandb.log(numbers, step=entry.step)
        return True


@contextmanager
def service_loggers(
    settings: RunSettings, config: Mapping[str, Any], folder: Path, resumed: bool = False
) -> Iterator[list[BaseLogger]]:
    """Give loggers as asked for, for as long as the run takes.

    All files go below ``folder``. A run that fails is marked as failed.

    :param config: all settings of the run, to be kept with it
    :param resumed: go on with the run of Weights & Biases that is in the folder
    :raises RunError: if a service is not installed or refuses
    """
    loggers: list[BaseLogger] = []
    failed = 1
    try:
        if settings.log_tensorboard:
            with _told_as("--log-tensorboard"):
                loggers.append(TensorBoardLogger(folder / "tensorboard"))
        if settings.log_wandb:
            given = _wandb_settings(settings.project, config, folder, resumed)
            with _told_as("--log-wandb"):
                loggers.append(PlainNamesLogger(given))
        yield loggers
        failed = 0
    finally:
        for logger in loggers:
            if isinstance(logger, WANDBLogger):
                logger.wandb.finish(exit_code=failed)
            elif isinstance(logger, TensorBoardLogger):
                logger.writer.close()


def log_histograms(loggers: list[BaseLogger], model: Any, epoch: int, step: int) -> None:
    """Write a histogram of the weights of each parameter that are not zero."""
    for name, param in model.named_parameters():
        values = param.detach()[param != 0].float().cpu()
        for logger in loggers if len(values) else ():
            if isinstance(logger, TensorBoardLogger):
                logger.writer.add_histogram(name, values, epoch)
            elif isinstance(logger, WANDBLogger):
                histogram = logger.wandb.Histogram(values.numpy())
                logger.wandb.log({f"histogram/{name}": histogram}, step=step)


@contextmanager
def _told_as(flag: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # no package, no key, no network: a service has errors of its own
        raise RunError(f"{flag}: {one_line(error)}") from error


def _wandb_settings(
    project: str, config: Mapping[str, Any], folder: Path, resumed: bool
) -> dict[str, Any]:
    return {
        "project": project,
        "name": folder.name,
        "config": dict(config),
        "dir": str(folder.absolute()),  # its service process may work in another folder
        "id": _run_id(folder, resumed),
        "resume": "allow",
    }


def _run_id(folder: Path, resumed: bool) -> str:
    """Return the run's name in Weights & Biases; one that is resumed keeps it."""
    file = folder / "wandb" / "run_id"
    if resumed and file.exists():
        return file.read_text(encoding="utf-8").strip()
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_text(file) as text:
        text.write(uuid.uuid4().hex[:8])
    return file.read_text(encoding="utf-8")


@dataclass
class EpochLog:
    """The epochs so far, and where they are told.

    :param rows: one for each epoch
    """

    session: Session
    training: Training
    settings: CheckpointSettings
    folder: Path
    loggers: list[BaseLogger]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(self, epoch: int, trained: Found, found: Found) -> dict[str, Any]:
        """Add a row.

        :param trained: by :meth:`~sparseml.run.session.Training.epoch`
        :param found: by evaluating the model then
        """
        info = ModuleSparsificationInfo(self.session.model)
        row = {
            "epoch": epoch,
            "train/loss": trained["loss"],
            **{f"eval/{key}": value for key, value in found.items()},
            **{key: value for key, value in trained.items() if key != "loss"},
            "total": info.params_total,
            "sparse": info.params_sparse,
            "sparsity_percent": info.params_sparse_percent,
            "prunable": info.params_prunable_total,
            "prunable_sparse": info.params_prunable_sparse,
            "prunable_sparsity_percent": info.params_prunable_sparse_percent,
        }
        self.rows.append(row)
        return row

    def last_found(self) -> Found:
        """Return what evaluating the model after the last epoch has found."""
        return {
            metric.name: self.rows[-1][f"eval/{metric.name}"] for metric in self.session.metrics
        }

    def tell(self, row: dict[str, Any], changed: bool) -> None:
        """Print a line, write the table, and log the row.

        :param changed: whether masks did
        """
        telling = self.session.metrics[0].text(self.last_found())
        say(
            f"epoch {row['epoch'] + 1}/{self.training.epochs}  train loss {row['train/loss']:.4f}  "
            f"{telling}  sparsity {row['sparsity']:.2%}  lr {row['lr']:.3g}"
        )
        step = max(0, self.training.steps - 1)
        numbers = {key: value for key, value in row.items() if key != "epoch"}
        for logger in self.loggers:
            content = row if isinstance(logger, WANDBLogger) else numbers
            logger.log_scalars("epoch", content, step=step)
        write_rows(self.folder / "summary.csv", self.rows)
        if self.settings.log_sparsity and changed:
            info = ModuleSparsificationInfo(self.session.model).params_info
            summary = {key: value for key, value in self.rows[-1].items() if "/" not in key}
            name = f"sparsity_distribution_epoch={row['epoch']}.json"
            with atomic_text(self.folder / name) as file:
                json.dump({"params_summary": summary, "params_info": info}, file, indent=2)
        if self.settings.log_param_histogram:
            log_histograms(self.loggers, self.session.model, row["epoch"], step)

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of the run as YAML."""
        import yaml

        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
        with atomic_text(self.folder / "args.yaml") as file:
            yaml.safe_dump(plain, file)
