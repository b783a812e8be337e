"""The ``sparseml`` command. Whatever is slow to import is imported by what runs."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any

import click

from sparseml.cli.compose_command import compose
from sparseml.cli.doctor_command import doctor
from sparseml.cli.gap_command import gap
from sparseml.cli.model_commands import bench, export
from sparseml.cli.recipe_command import recipe
from sparseml.cli.run_commands import prune, report, train
from sparseml.run.errors import run_reported
from sparseml.version import __version__

__all__ = ["main"]


class _Group(click.Group):
    """Ends with a line or two for whatever goes wrong."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command; for what click lets pass see :func:`run_reported`."""

        def run() -> None:
            try:
                super(_Group, self).main(*args, **kwargs)
                sys.stdout.flush()
            except OSError:  # of which what is left in the buffer would tell once more
                with suppress(OSError, ValueError), open(os.devnull, "w", encoding="utf-8") as none:
                    os.dup2(none.fileno(), sys.stdout.fileno())
                raise

        sys.exit(run_reported(run))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sparseml")
def main() -> None:
    """Sparsify neural networks while they train.

    \b
    Examples:
      sparseml recipe list
      sparseml recipe check recipe:timm/one_shot/cap/vit
      sparseml prune --help
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            # names in a recipe may have letters that a terminal lacks
            stream.reconfigure(errors="backslashreplace")


for command in (bench, compose, doctor, export, gap, prune, recipe, report, train):
    main.add_command(command)
