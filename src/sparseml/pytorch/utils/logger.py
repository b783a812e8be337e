"""All loggers under one name, as recipes and training scripts import them."""

from sparseml.pytorch.utils.loggers import (
    LOGGING_LEVELS,
    BaseLogger,
    ClearMLLogger,
    JSONLinesLogger,
    LambdaLogger,
    LoggerManager,
    PythonLogger,
    SparsificationGroupLogger,
    TensorBoardLogger,
    WANDBLogger,
)

__all__ = [
    "LOGGING_LEVELS",
    "BaseLogger",
    "ClearMLLogger",
    "JSONLinesLogger",
    "LambdaLogger",
    "LoggerManager",
    "PythonLogger",
    "SparsificationGroupLogger",
    "TensorBoardLogger",
    "WANDBLogger",
]
