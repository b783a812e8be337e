"""The root of the ``sparseml`` command. Whatever is slow to import is imported by what runs."""

from __future__ import annotations

import click

from sparseml.cli.recipe_command import recipe
from sparseml.cli.report_command import report
from sparseml.version import __version__

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sparseml")
def main() -> None:
    """Sparsify neural networks while they train."""


main.add_command(recipe)
main.add_command(report)
