"""``sparseml report``: pages on what runs gained."""

from __future__ import annotations

from pathlib import Path

import click

from sparseml.cli.problems import Problem

__all__ = ["report"]


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
        problem = Problem(str(error), kind=type(error).__name__)
        problem.as_json = as_json
        raise problem from error
    if as_json:
        click.echo(files.json.read_text(encoding="utf-8"), nl=False)
    else:
        click.echo(_shown(files.html))


def _shown(path: Path) -> str:
    """Return the path as seen from here, if it lies below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
