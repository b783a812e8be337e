"""``sparseml prune`` and ``train`` for the models of any trainer, and ``report`` on them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sparseml.cli.problems import Problem

if TYPE_CHECKING:
    from sparseml.run.session import Glue

#: What stands before the colon in ``--model`` → the library that the model is of, and the module
#: of the glue to it, which has it as ``GLUE``.
GLUES = {
    "timm": ("timm", "sparseml.timm.glue"),
    "hf": ("transformers", "sparseml.transformers.glue"),
    "fairseq": ("fairseq", "sparseml.fairseq.glue"),
}
_WITHOUT_PREFIX = "timm"  # also for models of the user's own, given as module.path:callable


class FlagsAsGiven(click.Command):
    """A command that hands its flags on as they are, ``--help`` among them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take all flags as one parameter."""
        ctx.params["flags"] = tuple(args)
        return []


@click.command(cls=FlagsAsGiven)
def prune(flags: tuple[str, ...]) -> None:
    """Prune a model in one shot and evaluate it."""
    from sparseml.run.commands import prune

    sys.exit(prune(flags, find_glue(flags), "sparseml prune"))


@click.command(cls=FlagsAsGiven)
def train(flags: tuple[str, ...]) -> None:
    """Train a model while a recipe prunes it."""
    from sparseml.run.commands import train

    sys.exit(train(flags, find_glue(flags), "sparseml train"))


def find_glue(flags: Sequence[str]) -> Glue:
    """Return the glue to the library of the model that flags, or the file they name, ask for.

    :raises Problem: if that library is not installed
    """
    model = _given(flags, "--model")
    if model is None:
        model = _model_in(_given(flags, "--config", "-c"))
    prefix, colon, _ = str(model).partition(":")
    named = prefix if colon and prefix in GLUES else _WITHOUT_PREFIX
    if model is None:  # as for --help, which needs any that is there
        there = (name for name, (library, _) in GLUES.items() if find_spec(library))
        named = next(there, _WITHOUT_PREFIX)
    library, module = GLUES[named]
    if find_spec(library) is None:
        raise Problem(
            f"this needs {library}, which is not installed; pip install 'sparseml-next[{library}]'"
        )
    glue: Glue = import_module(module).GLUE
    return glue


def _given(flags: Sequence[str], *names: str) -> str | None:
    """Return the last value that a flag is given."""
    found: str | None = None
    for flag, following in zip_longest(flags, flags[1:]):
        name, separator, value = flag.partition("=")
        if name in names:
            found = value if separator else following
    return found


def _model_in(file: str | None) -> Any:
    """Return the model that a file names; what else is wrong with the file is told later."""
    if file is None:
        return None
    from sparseml.run.errors import RunError
    from sparseml.run.settings.parser import config_content

    try:
        return config_content(file).get("model")
    except RunError:
        return None


@click.command()
@click.argument("runs", metavar="RUN_DIR...", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    metavar="DIR",
    help="Folder to write to. By default the run's own or, for several, the one they all lie in.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON for programs.")
def report(runs: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Show what runs gained in sparsity, size and speed.

    Every RUN_DIR is the folder of a run, or one that holds runs below it. One run is shown in full,
    several side by side. Writes report.html (one page that needs no network), report.json and
    report.md. Exit code 2 and one line on stderr tell what is wrong.

    \b
    Examples:
      sparseml report output/my-run
      sparseml report output/one-shot/gm output/one-shot/cap --out pages
    """
    from sparseml.report import NotARunError, write_report

    try:
        files = write_report(runs, out)
    except (NotARunError, ValueError, ImportError, OSError) as error:
        file = getattr(error, "filename", None)
        told = f"{file}: {error.strerror}" if isinstance(error, OSError) and file else str(error)
        problem = Problem(told, kind=type(error).__name__)
        problem.as_json = as_json
        raise problem from error
    if as_json:
        click.echo(files.json.read_text(encoding="utf-8"), nl=False)
    else:
        below = files.html.is_relative_to(Path.cwd())
        click.echo(files.html.relative_to(Path.cwd()) if below else files.html)
