from __future__ import annotations

import logging

from sparseml.log import get_main_logger, get_nm_root_logger, set_logging_level


def test_loggers_have_no_handlers_of_ours() -> None:
    assert get_main_logger().name == "__main__"
    assert get_nm_root_logger().name == "sparseml"
    assert not get_nm_root_logger().handlers


def test_levels_of_loggers_and_their_handlers() -> None:
    handler = logging.NullHandler()
    logger, main = get_nm_root_logger(), get_main_logger()
    before = logger.level, main.level
    logger.addHandler(handler)
    try:
        set_logging_level(logging.ERROR)
        assert (logger.level, main.level, handler.level) == (logging.ERROR,) * 3
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        main.setLevel(before[1])
