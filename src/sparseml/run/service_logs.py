"""TensorBoard and Weights & Biases, as runs use them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sparseml.pytorch.utils import BaseLogger, TensorBoardLogger, WANDBLogger
from sparseml.run.errors import RunError, one_line
from sparseml.run.files import atomic_text
from sparseml.run.settings.groups import RunSettings

__all__ = ["PlainNamesLogger", "log_histograms", "service_loggers"]

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
            loggers.append(_tensorboard(folder))
        if settings.log_wandb:
            loggers.append(_wandb(settings.project, config, folder, resumed))
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
    weights = {
        name: param.detach()[param != 0].float().cpu() for name, param in model.named_parameters()
    }
    for logger in loggers:
        for name, values in weights.items():
            if isinstance(logger, TensorBoardLogger) and len(values):
                logger.writer.add_histogram(name, values, epoch)
            elif isinstance(logger, WANDBLogger) and len(values):
                histogram = logger.wandb.Histogram(values.numpy())
                logger.wandb.log({f"histogram/{name}": histogram}, step=step)


def _tensorboard(folder: Path) -> BaseLogger:
    try:
        return TensorBoardLogger(folder / "tensorboard")
    except ImportError as error:
        raise RunError(f"--log-tensorboard: {one_line(error)}") from error


def _wandb(project: str, config: Mapping[str, Any], folder: Path, resumed: bool) -> BaseLogger:
    settings = {
        "project": project,
        "name": folder.name,
        "config": dict(config),
        "dir": str(folder.absolute()),  # its service process may work in another folder
        "id": _run_id(folder, resumed),
        "resume": "allow",
    }
    try:
        return PlainNamesLogger(settings)
    except Exception as error:  # no package, no key, no network: a service has errors of its own
        raise RunError(f"--log-wandb: {one_line(error)}") from error


def _run_id(folder: Path, resumed: bool) -> str:
    """Return the run's name in Weights & Biases; one that is resumed keeps it."""
    file = folder / "wandb" / "run_id"
    if resumed and file.exists():
        return file.read_text(encoding="utf-8").strip()
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_text(file) as text:
        text.write(uuid.uuid4().hex[:8])
    return file.read_text(encoding="utf-8")
