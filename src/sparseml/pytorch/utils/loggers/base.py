"""The interface that every logger implements."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

__all__ = ["LOGGING_LEVELS", "BaseLogger", "LogEntry", "LogMethods", "Scalar", "test_log_dir"]

#: Names of levels as recipes and commands give them.
LOGGING_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

#: What ``log_scalar`` takes: a number or a tensor of one element.
Scalar = float | int | Tensor

_Tag = str | None
_Step = int | None
_Time = float | None


def test_log_dir() -> Path | None:
    """Return the folder that logs are redirected to while testing, None otherwise.

    Set by ``NM_TEST_LOG_DIR`` and in force only while ``NM_TEST_MODE`` is set and not ``0``.
    """
    mode, folder = os.environ.get("NM_TEST_MODE"), os.environ.get("NM_TEST_LOG_DIR")
    if not mode or mode in ("0", "false", "False") or not folder:
        return None
    return Path(folder)


class LogEntry(NamedTuple):
    """One thing to record.

    :param kind: which ``log_*`` method it came by
    :param tag: its name (``hyperparams`` for hyper-parameters; None for an untagged text)
    :param content: a number, a mapping of named values, or a text
    :param step: the optimizer step
    :param wall_time: seconds since the epoch
    :param level: one of Python's logging levels
    """

    kind: Literal["hyperparams", "scalar", "scalars", "string"]
    tag: str | None
    content: Any
    step: int | None = None
    wall_time: float | None = None
    level: int | None = None

    def numbers(self) -> dict[str, Any]:
        """Return the numbers, each under a tag of its own (``<tag>/<name>`` if several)."""
        if self.kind == "scalars":
            return {f"{self.tag}/{name}": value for name, value in self.content.items()}
        return {str(self.tag): self.content} if self.kind == "scalar" else {}

    def time(self) -> float:
        """Return ``wall_time``, or now if there is none."""
        return time.time() if self.wall_time is None else self.wall_time

    def send_to(self, logger: BaseLogger) -> bool:
        """Record the entry with ``logger``, by its ``log_*`` method."""
        if self.kind == "hyperparams":
            return logger.log_hyperparams(self.content, level=self.level)
        method = getattr(logger, f"log_{self.kind}")
        return method(self.tag, self.content, self.step, self.wall_time, level=self.level)


class LogMethods:
    """The ``log_*`` methods of a logger, and of a manager of several.

    All return whether the entry was taken. ``step`` is the optimizer step, ``wall_time`` seconds
    since the epoch, the keyword ``level`` one of Python's logging levels.
    """

    def _log(self, entry: LogEntry, level: int | None = None, **kwargs: Any) -> bool:
        """Record an entry at a level; the keywords are all others of a ``log_*`` method."""
        raise NotImplementedError

    def log_hyperparams(self, params: Mapping[str, Any], **kwargs: Any) -> bool:
        """Record the settings of a run."""
        return self._log(LogEntry("hyperparams", "hyperparams", params), **kwargs)

    def log_scalar(
        self, tag: str, value: Scalar, step: _Step = None, wall_time: _Time = None, **kwargs: Any
    ) -> bool:
        """Record one number under ``tag``."""
        return self._log(LogEntry("scalar", tag, value, step, wall_time), **kwargs)

    def log_scalars(
        self,
        tag: str,
        values: Mapping[str, Scalar],
        step: _Step = None,
        wall_time: _Time = None,
        **kwargs: Any,
    ) -> bool:
        """Record several named numbers under one ``tag``."""
        return self._log(LogEntry("scalars", tag, values, step, wall_time), **kwargs)

    def log_string(
        self, tag: _Tag, string: str, step: _Step = None, wall_time: _Time = None, **kwargs: Any
    ) -> bool:
        """Record a text under ``tag``."""
        return self._log(LogEntry("string", tag, string, step, wall_time), **kwargs)


class BaseLogger(LogMethods):
    """A destination for the numbers and texts of a run. This one takes nothing.

    A subclass overrides :meth:`emit`, which every ``log_*`` method ends in, or just the methods
    that it has a use for. Keywords that are not known are ignored.

    :param name: what ``log_types`` of :class:`LoggerManager` selects this logger by
    :param enabled: whether :class:`LoggerManager` hands entries to this logger
    """

    def __init__(self, name: str, enabled: bool = True):
        self._name = name
        self.enabled = enabled

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self._name!r}, enabled={self.enabled})"

    @property
    def name(self) -> str:
        """What this logger is selected by."""
        return self._name

    def emit(self, entry: LogEntry) -> bool:
        """Record an entry, if this destination can."""
        return False

    def _log(self, entry: LogEntry, level: int | None = None, **kwargs: Any) -> bool:
        return self.emit(entry._replace(level=level))

    def save(self, file_path: str, **kwargs: Any) -> bool:
        """Store a file with the run, where the destination can."""
        return False
