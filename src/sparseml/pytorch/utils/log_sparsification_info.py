"""Writing the sparsification report to loggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sparseml.pytorch.utils.sparsification_info import ModuleSparsificationInfo

__all__ = ["log_module_sparsification_info"]


def log_module_sparsification_info(module: nn.Module, logger: Any, step: Any = None) -> None:
    """Log every item of the report on ``module``.

    :param logger: a ``BaseLogger`` or ``LoggerManager``: dicts go to its ``log_scalars``, other
        values to ``log_scalar``
    :param step: the step to log under
    """
    for tag, value in ModuleSparsificationInfo.from_module(module).loggable_items():
        if isinstance(value, Mapping):
            logger.log_scalars(tag=tag, values=value, step=step)
        else:
            logger.log_scalar(tag=tag, value=value, step=step)
