"""Loggers that need nothing installed: Python's ``logging`` and a function of the user's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sparseml.pytorch.utils.loggers.base import BaseLogger, LogEntry, test_log_dir

__all__ = ["LambdaLogger", "PythonLogger"]

# the module that users import loggers from
_DEFAULT_NAME = "sparseml.pytorch.utils.logger"
_TEST_HANDLER = "sparseml-test-log"


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
