"""The set of loggers that a manager and its modifiers write to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from sparseml.pytorch.utils.loggers.base import BaseLogger, LogEntry, LogMethods, PythonLogger
from sparseml.pytorch.utils.loggers.services import WANDBLogger
from sparseml.utils.constants import ALL_TOKEN

LogTypes = str | Sequence[str]


class LoggerManager(LogMethods):
    """Hands entries to every enabled logger and says when logging is due.

    Iterates over, and has the length of, its loggers; empty it is falsy. The keyword ``log_types``
    of its ``log_*`` methods names the loggers meant, all by default.

    :param loggers: the loggers
    :param log_frequency: epochs between two entries of a modifier; None turns them off
    :param log_python: add a :class:`PythonLogger` unless there is one already
    :raises ValueError: for an element that is no :class:`BaseLogger`
    """

    def __init__(
        self,
        loggers: Sequence[BaseLogger] | None = None,
        log_frequency: float | None = 0.1,
        log_python: bool = True,
        name: str = "manager",
    ):
        self.loggers: list[BaseLogger] = []
        self.log_frequency = log_frequency
        self.name = name
        for logger in loggers or ():
            self.add_logger(logger)
        if log_python and not any(isinstance(logger, PythonLogger) for logger in self.loggers):
            self.loggers.append(PythonLogger())

    def __len__(self) -> int:
        return len(self.loggers)

    def __iter__(self) -> Iterator[BaseLogger]:
        return iter(self.loggers)

    @property
    def wandb(self) -> ModuleType | None:
        """The wandb module if one of the loggers writes to it, else None."""
        return next((log.wandb for log in self.loggers if isinstance(log, WANDBLogger)), None)

    def add_logger(self, logger: BaseLogger) -> None:
        """Add a logger.

        :raises ValueError: if it is no :class:`BaseLogger`
        """
        if not isinstance(logger, BaseLogger):
            raise ValueError(f"a logger must be a BaseLogger, found {type(logger).__name__}")
        self.loggers.append(logger)

    def log_ready(self, epoch: float | None, last_log_epoch: float | None) -> bool:
        """Whether an entry is due at ``epoch`` when the last one was at ``last_log_epoch``."""
        if self.log_frequency is None or not any(log.enabled for log in self.loggers):
            return False
        if epoch is None or last_log_epoch is None:
            return True
        return epoch == last_log_epoch or epoch >= last_log_epoch + self.log_frequency

    @staticmethod
    def epoch_to_step(epoch: float | None, steps_per_epoch: int | None) -> int | None:
        """Return the optimizer step at ``epoch`` (the rounded epoch if steps are unknown).

        None has no step, nor has infinity, which stands for one shot.
        """
        if epoch is None or math.isinf(epoch):
            return None
        return round(epoch * steps_per_epoch if steps_per_epoch and steps_per_epoch > 0 else epoch)

    def save(self, file_path: str, log_types: LogTypes = ALL_TOKEN, **kwargs: Any) -> None:
        """Store a file with the run, with the loggers that can."""
        names = [log_types] if isinstance(log_types, str) else log_types
        for logger in self.loggers:
            if logger.enabled and (ALL_TOKEN in names or logger.name in names):
                logger.save(file_path, **kwargs)

    def emit(self, entry: LogEntry) -> bool:
        """Hand an entry to the loggers that it is meant for; return whether any has taken it."""
        names = [entry.log_types] if isinstance(entry.log_types, str) else entry.log_types
        taken = [
            entry.send_to(logger)
            for logger in self.loggers
            if logger.enabled and (ALL_TOKEN in names or logger.name in names)
        ]
        return any(taken)
