"""Loggers for services that are installed on their own: TensorBoard, W&B, ClearML.

Their packages are imported when a logger is made, never with this module.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparseml.pytorch.utils.loggers.base import BaseLogger, LogEntry, test_log_dir


class TensorBoardLogger(BaseLogger):
    """Writes TensorBoard event files.

    :param log_path: folder for the event files, ``./tensorboard`` if neither this nor ``writer``
        is given (a folder in ``NM_TEST_LOG_DIR`` while testing)
    :param writer: a ``SummaryWriter`` of the user's to write with instead
    :raises ValueError: when both are given
    :raises ImportError: when neither torch's writer nor tensorboardX can be imported
    """

    def __init__(
        self,
        log_path: str | Path | None = None,
        writer: Any = None,
        name: str = "tensorboard",
        enabled: bool = True,
    ):
        super().__init__(name, enabled)
        if log_path is not None and writer is not None:
            raise ValueError(f"give log_path or writer, not both; found {log_path!r}, {writer!r}")
        self.writer = _summary_writer(log_path) if writer is None else writer

    def emit(self, entry: LogEntry) -> bool:
        if entry.content is None:
            return False
        if entry.kind == "hyperparams":
            kinds = (bool, int, float, str)
            plain = {k: v if isinstance(v, kinds) else str(v) for k, v in entry.content.items()}
            self.writer.add_hparams(plain, {})
        elif entry.kind == "string":
            self.writer.add_text(entry.tag or "text", entry.content, entry.step, entry.wall_time)
        # not add_scalars, which makes a folder of events for each number
        for tag, value in entry.numbers().items():
            self.writer.add_scalar(tag, value, entry.step, entry.wall_time)
        return True


def _summary_writer(log_path: str | Path | None) -> Any:
    try:
        writer_class = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        try:
            writer_class = importlib.import_module("tensorboardX").SummaryWriter
        except ImportError:
            raise ImportError(
                "TensorBoardLogger needs tensorboard: pip install sparseml-next[tensorboard] "
                f"({error})"
            ) from error
    if log_path is None:
        log_path = (test_log_dir() or Path(".")) / "tensorboard"
    path = Path(log_path).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    return writer_class(str(path))


class WANDBLogger(BaseLogger):
    """Writes to Weights & Biases; calls ``wandb.init`` when made.

    :param init_kwargs: keywords of ``wandb.init``; while testing, ``dir`` is ``NM_TEST_LOG_DIR``
    :param wandb_err: an error to raise instead of importing wandb
    :raises ModuleNotFoundError: when wandb is not installed
    """

    def __init__(
        self,
        init_kwargs: Mapping[str, Any] | None = None,
        name: str = "wandb",
        enabled: bool = True,
        wandb_err: Exception | None = None,
    ):
        super().__init__(name, enabled)
        if wandb_err is not None:
            raise wandb_err
        self.wandb = _import_service("wandb", "WANDBLogger", "sparseml-next[wandb]")
        folder = test_log_dir()
        given = {} if folder is None else {"dir": str(folder)}
        self.wandb.init(**{**(init_kwargs or {}), **given})

    @staticmethod
    def available() -> bool:
        """Whether wandb is installed."""
        return _is_installed("wandb")

    def emit(self, entry: LogEntry) -> bool:
        if entry.kind == "hyperparams":
            self.wandb.config.update(dict(entry.content), allow_val_change=True)
            return True
        numbers = entry.numbers()
        if numbers:
            self.wandb.log(numbers, step=entry.step)
        return bool(numbers)

    def save(self, file_path: str, **kwargs: Any) -> bool:
        self.wandb.save(file_path)
        return True


class ClearMLLogger(BaseLogger):
    """Writes to ClearML; starts a task when made.

    :raises ModuleNotFoundError: when clearml is not installed
    """

    def __init__(
        self,
        name: str = "clearml",
        enabled: bool = True,
        project_name: str = "sparseml",
        task_name: str = "",
    ):
        super().__init__(name, enabled)
        clearml = _import_service("clearml", "ClearMLLogger", "clearml")
        self._task = clearml.Task.init(project_name=project_name, task_name=task_name or None)

    @staticmethod
    def available() -> bool:
        """Whether clearml is installed."""
        return _is_installed("clearml")

    def emit(self, entry: LogEntry) -> bool:
        if entry.kind == "hyperparams":
            self._task.connect(dict(entry.content))
        elif entry.kind == "string":
            self._task.get_logger().report_text(f"{entry.tag or ''}: {entry.content}")
        for tag, value in entry.numbers().items():
            number = float(value)
            if math.isfinite(number):  # ClearML rejects the others
                title, _, series = tag.rpartition("/")
                self._task.get_logger().report_scalar(
                    title or tag, series, number, iteration=entry.step or 0
                )
        return True


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # blocked, or put there by hand
        return sys.modules[package] is not None


def _import_service(package: str, logger: str, requirement: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        # a package that is there and broken is not missing
        kind = ModuleNotFoundError if isinstance(error, ModuleNotFoundError) else ImportError
        raise kind(f"{logger} needs {package}: pip install {requirement} ({error})") from error
