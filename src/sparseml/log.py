"""The loggers of this package. It attaches no handlers to them: that is up to the application."""

from __future__ import annotations

import logging

__all__ = ["get_main_logger", "get_nm_root_logger", "set_logging_level"]


def get_main_logger() -> logging.Logger:
    """The logger of the program that runs, ``__main__``."""
    return logging.getLogger("__main__")


def get_nm_root_logger() -> logging.Logger:
    """The logger above all loggers of this package, ``sparseml``."""
    return logging.getLogger("sparseml")


def set_logging_level(level: int) -> None:
    """
    Set the level of both loggers and of their handlers.

    :param level: for example ``logging.DEBUG``
    """
    for logger in (get_main_logger(), get_nm_root_logger()):
        logger.setLevel(level)
        for handler in logger.handlers:
            handler.setLevel(level)
