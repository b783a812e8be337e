"""Where the numbers of a run go: the log, TensorBoard, Weights & Biases, a file, a function."""

from sparseml.pytorch.utils.loggers.base import LOGGING_LEVELS, BaseLogger, Scalar
from sparseml.pytorch.utils.loggers.group import SparsificationGroupLogger
from sparseml.pytorch.utils.loggers.json_lines import JSONLinesLogger
from sparseml.pytorch.utils.loggers.manager import LoggerManager
from sparseml.pytorch.utils.loggers.python import LambdaLogger, PythonLogger
from sparseml.pytorch.utils.loggers.services import ClearMLLogger, TensorBoardLogger, WANDBLogger

__all__ = [
    "LOGGING_LEVELS",
    "BaseLogger",
    "ClearMLLogger",
    "JSONLinesLogger",
    "LambdaLogger",
    "LoggerManager",
    "PythonLogger",
    "Scalar",
    "SparsificationGroupLogger",
    "TensorBoardLogger",
    "WANDBLogger",
]
