"""The interface of every logger, and the loggers that need nothing installed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from sparseml.utils.constants import ALL_TOKEN

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

_Step = int | None
_Time = float | None

# the module that users import loggers from
_DEFAULT_NAME = "sparseml.pytorch.utils.logger"
_TEST_HANDLER = "sparseml-test-log"


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
    :param log_types: names of the loggers of a manager that it is meant for
    """

    kind: Literal["hyperparams", "scalar", "scalars", "string"]
    tag: str | None
    content: Any
    step: int | None = None
    wall_time: float | None = None
    level: int | None = None
    log_types: str | Sequence[str] = ALL_TOKEN

    def numbers(self) -> dict[str, Any]:
        """Return the numbers, each under a tag of its own (``<tag>/<name>`` if several).

        None is no number, and left out.
        """
        found: Mapping[str, Any] = {}
        if self.kind == "scalars":
            found = {f"{self.tag}/{name}": value for name, value in self.content.items()}
        elif self.kind == "scalar":
            found = {str(self.tag): self.content}
        return {tag: value for tag, value in found.items() if value is not None}

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
    since the epoch, the keyword ``level`` one of Python's logging levels. Keywords that are not
    known are ignored.
    """

    def emit(self, entry: LogEntry) -> bool:
        """Record an entry, if this destination can."""
        return False

    def log_hyperparams(self, params: Mapping[str, Any], **kwargs: Any) -> bool:
        """Record the settings of a run."""
        level, meant = kwargs.get("level"), kwargs.get("log_types", ALL_TOKEN)
        return self.emit(LogEntry("hyperparams", "hyperparams", params, None, None, level, meant))

    def log_scalar(
        self, tag: str, value: Scalar, step: _Step = None, wall_time: _Time = None, **kwargs: Any
    ) -> bool:
        """Record one number under ``tag``."""
        level, meant = kwargs.get("level"), kwargs.get("log_types", ALL_TOKEN)
        return self.emit(LogEntry("scalar", tag, value, step, wall_time, level, meant))

    def log_scalars(
        self,
        tag: str,
        values: Mapping[str, Scalar],
        step: _Step = None,
        wall_time: _Time = None,
        **kwargs: Any,
    ) -> bool:
        """Record several named numbers under one ``tag``."""
        level, meant = kwargs.get("level"), kwargs.get("log_types", ALL_TOKEN)
        return self.emit(LogEntry("scalars", tag, values, step, wall_time, level, meant))

    def log_string(
        self,
        tag: str | None,
        string: str,
        step: _Step = None,
        wall_time: _Time = None,
        **kwargs: Any,
    ) -> bool:
        """Record a text under ``tag``."""
        level, meant = kwargs.get("level"), kwargs.get("log_types", ALL_TOKEN)
        return self.emit(LogEntry("string", tag, string, step, wall_time, level, meant))


class BaseLogger(LogMethods):
    """A destination for the numbers and texts of a run. This one takes nothing.

    A subclass overrides :meth:`emit`, which every ``log_*`` method ends in, or just the methods
    that it has a use for.

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

    def save(self, file_path: str, **kwargs: Any) -> bool:
        """Store a file with the run, where the destination can."""
        return False


class LambdaLogger(BaseLogger):
    """Hands every entry to a function.

    :param lambda_func: called with the keywords ``tag``, ``value`` (a number or None), ``values``
        (a mapping or None), ``step``, ``wall_time`` (now when not given) and ``level``.
        Hyper-parameters come as ``values`` under the tag ``hyperparams``; texts are not passed on.
    :raises AssertionError: if ``lambda_func`` is not callable
    """

    def __init__(self, lambda_func: Callable[..., Any], name: str = "lambda", enabled: bool = True):
        super().__init__(name, enabled)
        if not callable(lambda_func):
            raise AssertionError(f"lambda_func must be callable, found {lambda_func!r}")
        self._lambda_func = lambda_func

    @property
    def lambda_func(self) -> Callable[..., Any]:
        """The function that entries are handed to."""
        return self._lambda_func

    def emit(self, entry: LogEntry) -> bool:
        if entry.kind == "string":
            return False
        is_scalar = entry.kind == "scalar"
        self._lambda_func(
            tag=entry.tag,
            value=entry.content if is_scalar else None,
            values=None if is_scalar else entry.content,
            step=entry.step,
            wall_time=entry.time(),
            level=entry.level,
        )
        return True


class PythonLogger(BaseLogger):
    """Writes every entry as a line of Python's ``logging``.

    Attributes that are not found here are looked up in the ``logging.Logger``.

    :param logger: the ``logging.Logger`` to write to. The default is this package's own; no
        handler is added and no file made, so that the application decides what is shown. While
        testing (``NM_TEST_MODE`` set) lines go to a file in ``NM_TEST_LOG_DIR`` as well.
    :param log_level: level of entries that come without one, ``logging.DEBUG`` if None
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        log_level: int | None = None,
        name: str = "python",
        enabled: bool = True,
    ):
        super().__init__(name, enabled)
        self._logger = _default_logger() if logger is None else logger
        self._log_level = logging.DEBUG if log_level is None else log_level

    def __getattr__(self, item: str) -> Any:
        if item.startswith("_"):  # also keeps copying and unpickling from recursing
            raise AttributeError(f"{type(self).__name__} has no attribute {item!r}")
        return getattr(self._logger, item)

    @property
    def logger(self) -> logging.Logger:
        """The ``logging.Logger`` that lines are written to."""
        return self._logger

    def emit(self, entry: LogEntry) -> bool:
        level = self._log_level if entry.level is None else entry.level
        if self._logger.isEnabledFor(level):
            where = "" if entry.step is None else f" step {entry.step}"
            prefix = f"{entry.tag or ''}{where}: " if entry.tag or where else ""
            self._logger.log(level, "%s%s", prefix, _format(entry.content))
        return True


def _format(content: Any) -> str:
    if isinstance(content, Mapping):
        return ", ".join(f"{key}: {_format(value)}" for key, value in content.items())
    if hasattr(content, "item") and getattr(content, "ndim", 0) == 0:
        content = content.item()
    return f"{content:.6g}" if isinstance(content, float) else str(content)


def _default_logger() -> logging.Logger:
    logger = logging.getLogger(_DEFAULT_NAME)
    folder = test_log_dir()
    if folder is not None:
        _redirect(logger, folder.absolute())
    return logger


def _redirect(logger: logging.Logger, folder: Path) -> None:
    """Send the logger's lines to a file in ``folder``, and no longer to that of an earlier test."""
    for handler in [item for item in logger.handlers if item.name == _TEST_HANDLER]:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).parent == folder:
            return
        logger.removeHandler(handler)
        handler.close()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{datetime.now():%d-%m-%Y_%H.%M.%S}.log"
    file_handler = logging.FileHandler(path, delay=True)  # no file before the first line
    file_handler.set_name(_TEST_HANDLER)
    logger.addHandler(file_handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
