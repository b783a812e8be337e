"""The interface that every logger implements."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

__all__ = ["LOGGING_LEVELS", "BaseLogger", "Scalar", "test_log_dir"]

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


def test_log_dir() -> Path | None:
    """Folder that logs are redirected to while testing, None otherwise.

    Set by ``NM_TEST_LOG_DIR`` and in force only while ``NM_TEST_MODE`` is set and not ``0``.
    """
    mode, folder = os.environ.get("NM_TEST_MODE"), os.environ.get("NM_TEST_LOG_DIR")
    if not mode or mode in ("0", "false", "False") or not folder:
        return None
    return Path(folder)


class BaseLogger:
    """A destination for the numbers and texts of a run. This one takes nothing.

    Every ``log_*`` method returns whether the destination took the entry, so a subclass overrides
    only what it can take. ``step`` is the optimizer step, ``wall_time`` seconds since the epoch;
    further keywords (``level`` among them) may be ignored.

    :param name: what ``log_types`` of :class:`LoggerManager` selects this logger by
    :param enabled: whether :class:`LoggerManager` hands entries to this logger
    """

    def __init__(self, name: str, enabled: bool = True):
        self._name = name
        self._enabled = enabled

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self._name!r}, enabled={self._enabled})"

    @property
    def name(self) -> str:
        """What this logger is selected by."""
        return self._name

    @property
    def enabled(self) -> bool:
        """Whether entries are handed to this logger."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value

    def log_hyperparams(self, params: Mapping[str, Any], level: int | None = None) -> bool:
        """Record the settings of a run."""
        return False

    def log_scalar(
        self,
        tag: str,
        value: Scalar,
        step: int | None = None,
        wall_time: float | None = None,
        **kwargs: Any,
    ) -> bool:
        """Record one number under ``tag``."""
        return False

    def log_scalars(
        self,
        tag: str,
        values: Mapping[str, Scalar],
        step: int | None = None,
        wall_time: float | None = None,
        **kwargs: Any,
    ) -> bool:
        """Record several named numbers under one ``tag``."""
        return False

    def log_string(
        self,
        tag: str | None,
        string: str,
        step: int | None = None,
        wall_time: float | None = None,
        **kwargs: Any,
    ) -> bool:
        """Record a text under ``tag``."""
        return False

    def save(self, file_path: str, **kwargs: Any) -> bool:
        """Store a file with the run, where the destination can."""
        return False
