"""The ``sparseml`` command. Whatever is slow to import is imported by what runs."""

from __future__ import annotations

import io
import sys

import click

from sparseml.cli.compose_command import compose
from sparseml.cli.doctor_command import doctor
from sparseml.cli.gap_command import gap
from sparseml.cli.model_commands import bench, export
from sparseml.cli.recipe_command import recipe
from sparseml.cli.run_commands import prune, report, train
from sparseml.version import __version__

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
