"""Commands of fairseq with the plugin that knows SRP, in this process."""

from __future__ import annotations

import importlib
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from sparseml.fairseq import USER_DIR
from sparseml.fairseq.errors import require_fairseq
from sparseml.run.errors import RunError, run_reported

_LONGEST = 400  # letters of what fairseq says of a flag, as it names all that there are


def fairseq(command: str, argv: Sequence[str]) -> int:
    """Run ``fairseq-train`` or another command; return the status of the process.

    :param command: such as ``train``
    :param argv: its flags; an own ``--user-dir`` has to call ``sparseml.fairseq.hooks.install()``
    """

    def run() -> None:
        require_fairseq()
        plugin = [] if "--user-dir" in argv else ["--user-dir", str(USER_DIR)]
        sys.argv = [f"fairseq-{command}", *argv, *plugin]
        with warnings.catch_warnings(), _flags_told():
            warnings.simplefilter("ignore")  # what is old in fairseq
            importlib.import_module(f"fairseq_cli.{command}").cli_main()

    return run_reported(run)


@contextmanager
def _flags_told() -> Iterator[None]:
    """Tell what is wrong with a flag in one line, without the two hundred that fairseq has."""

    def refuse(parser: ArgumentParser, message: str) -> NoReturn:
        raise RunError(message if len(message) <= _LONGEST else f"{message[:_LONGEST]}...")

    before = ArgumentParser.error
    ArgumentParser.error = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        ArgumentParser.error = before  # type: ignore[method-assign]
