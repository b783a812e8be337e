"""All loggers under one name, as recipes and training scripts import them."""

from sparseml.pytorch.utils.loggers.base import (
    LOGGING_LEVELS,
    BaseLogger,
    LambdaLogger,
    LogEntry,
    PythonLogger,
)
from sparseml.pytorch.utils.loggers.group import SparsificationGroupLogger
from sparseml.pytorch.utils.loggers.json_lines import JSONLinesLogger
from sparseml.pytorch.utils.loggers.manager import LoggerManager
from sparseml.pytorch.utils.loggers.services import ClearMLLogger, TensorBoardLogger, WANDBLogger

__all__ = [
    "LOGGING_LEVELS",
    "BaseLogger",
    "ClearMLLogger",
    "JSONLinesLogger",
    "LambdaLogger",
    "LogEntry",
    "LoggerManager",
    "PythonLogger",
    "SparsificationGroupLogger",
    "TensorBoardLogger",
    "WANDBLogger",
]
