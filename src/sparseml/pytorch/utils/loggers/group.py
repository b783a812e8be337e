"""One logger over several, built from short settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from sparseml.pytorch.utils.loggers.base import BaseLogger, LambdaLogger, LogEntry, PythonLogger
from sparseml.pytorch.utils.loggers.services import TensorBoardLogger, WANDBLogger

_LOGGER = logging.getLogger(__name__)


class SparsificationGroupLogger(BaseLogger):
    """Passes entries on to the loggers that it builds from its arguments, all of its own name.

    :param lambda_func: a function for a :class:`LambdaLogger`
    :param python: True, or a ``logging.Logger``, for a :class:`PythonLogger`
    :param python_log_level: level of that logger's entries
    :param tensorboard: True, a folder, or a ``SummaryWriter`` for a :class:`TensorBoardLogger`
    :param wandb_: True, or keywords of ``wandb.init``, for a :class:`WANDBLogger`; where wandb is
        not installed it is left out with a warning
    :param enabled: setting it later sets it for all
    """

    def __init__(
        self,
        lambda_func: Callable[..., Any] | None = None,
        python: bool | logging.Logger | None = None,
        python_log_level: int = logging.INFO,
        tensorboard: Any = None,
        wandb_: bool | Mapping[str, Any] | None = None,
        name: str = "sparsification",
        enabled: bool = True,
    ):
        self.loggers: list[BaseLogger] = []
        super().__init__(name, enabled)
        if lambda_func:
            self.loggers.append(LambdaLogger(lambda_func, name, enabled))
        if python:
            logger = python if isinstance(python, logging.Logger) else None
            self.loggers.append(PythonLogger(logger, python_log_level, name, enabled))
        if tensorboard:
            is_path = isinstance(tensorboard, (str, os.PathLike))
            self.loggers.append(
                TensorBoardLogger(
                    log_path=tensorboard if is_path else None,
                    writer=None if is_path or tensorboard is True else tensorboard,
                    name=name,
                    enabled=enabled,
                )
            )
        if wandb_ and not WANDBLogger.available():
            _LOGGER.warning(
                "logging goes on without Weights & Biases: pip install sparseml-next[wandb]"
            )
        elif wandb_:
            kwargs = wandb_ if isinstance(wandb_, Mapping) else None
            self.loggers.append(WANDBLogger(kwargs, name, enabled))

    @property
    def enabled(self) -> bool:
        """Whether entries are handed on."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value
        for logger in self.loggers:
            logger.enabled = value

    def emit(self, entry: LogEntry) -> bool:
        return self._all(entry.send_to)

    def save(self, file_path: str, **kwargs: Any) -> bool:
        return self._all(lambda logger: logger.save(file_path, **kwargs))

    def _all(self, action: Callable[[BaseLogger], bool]) -> bool:
        taken = [action(logger) for logger in self.loggers if logger.enabled]
        return any(taken)
