"""The two runs as commands, for any trainer. What is slow to import is imported by what runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from sparseml.run.errors import run_reported
from sparseml.utils.text import printable

if TYPE_CHECKING:
    from sparseml.run.session import Glue


def prune(argv: Sequence[str], glue: Glue, prog: str | None = None) -> int:
    """Prune a model in one shot, without training.

    :param argv: the flags
    :param glue: to the library that the model is of
    :param prog: what the command is called in its help
    :return: the exit status, 2 after a mistake of the user, which is told in one line
    """

    def run() -> None:
        settings = glue.one_shot_settings(argv, prog)
        from sparseml.run.one_shot import run_one_shot

        run_one_shot(settings, glue)

    return _logged(run)


def train(argv: Sequence[str], glue: Glue, prog: str | None = None) -> int:
    """Train a model while a recipe prunes it; arguments and exit status are those of `prune`."""

    def run() -> None:
        settings = glue.training_settings(argv, prog)
        from sparseml.run.training import run_training

        run_training(settings, glue)

    return _logged(run)


class AboveBars(logging.StreamHandler[TextIO]):
    """Writes to stderr without breaking a bar that is shown there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's text, after the bar is cleared."""
        from tqdm import tqdm  # here, as the help of a command needs none

        tqdm.write(printable(self.format(record)), file=sys.stderr)


def _logged(run: Callable[[], None]) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[AboveBars()])
    return run_reported(run)
