"""Writes docs/commands.md from the help of the commands themselves.

    python docs/generate_commands.py

To be run after a command or a flag was changed; a test compares the file with what this writes. It
needs the extras timm, transformers and fairseq.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
from click.testing import CliRunner

from sparseml.cli import main as sparseml
from sparseml.cli.run_commands import GLUES
from sparseml.run.errors import RunError

PAGE = Path(__file__).with_name("commands.md")
HEAD = """\
# Commands

Every command with its help. This page is written by `docs/generate_commands.py`. What runs do is
told in [Pruning and training from the command line](running.md).

| command | what it does |
|---|---|
"""
RUNS = {"prune": "one_shot_settings", "train": "training_settings"}
"""Commands whose flags are those of the library that the model is of → what reads them."""
LIBRARIES = {"timm": "timm", "hf": "Transformers", "fairseq": "fairseq"}


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Return the page as it should be."""
    paths = list(_paths(sparseml))
    rows = []
    for path in paths:
        command = _find(path)
        if not isinstance(command, click.Group):
            name = " ".join(path)
            anchor = "-".join(["sparseml", *path])
            rows.append(f"| [`sparseml {name}`](#{anchor}) | {command.get_short_help_str(200)} |")
    sections = [_run(path[0]) if path[0] in RUNS else _plain(path) for path in paths]
    return HEAD + "\n".join(rows) + "\n\n" + "\n".join(sections)


def _paths(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    for name, child in sorted(getattr(command, "commands", {}).items()):
        if not child.hidden:
            yield from _paths(child, (*path, name))


def _find(path: tuple[str, ...]) -> click.Command:
    command: click.Command = sparseml
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


def _plain(path: tuple[str, ...]) -> str:
    runner = CliRunner(env={"COLUMNS": "100"})
    text = runner.invoke(sparseml, [*path, "--help"], prog_name="sparseml").stdout
    level = "##" if len(path) == 1 else "###"
    return f"{level} sparseml {' '.join(path)}\n\n```text\n{text.rstrip()}\n```\n"


def _run(name: str) -> str:
    """Return the section of a command that has the flags of a library: those of timm, and then
    for each other library what it has besides."""
    there = {prefix: _parser(module, name) for prefix, (_, module) in GLUES.items()}
    parsers = {prefix: parser for prefix, parser in there.items() if parser is not None}
    about = (parsers["timm"].description or "").partition("\nThese are the flags")[0]
    lines = [f"## sparseml {name}\n", f"{about}\n"]
    known: set[str] = set()
    for prefix, parser in parsers.items():
        others = "" if prefix == "timm" else ", beside those above"
        lines += [f"### {name}: models of {LIBRARIES[prefix]}\n", f"Flags{others}.\n"]
        for group in parser._action_groups:
            rows = [_row(one) for one in group._group_actions if one.help != argparse.SUPPRESS]
            rows = [row for row in rows if row not in known]
            known.update(rows)
            if rows:
                title = (group.title or "").replace("options", "general")
                lines += [f"**{title}**\n", "| flag | |", "|---|---|", *rows, ""]
        if examples := (parser.epilog or "").removeprefix("examples:"):
            shown = "\n".join(line.strip() for line in examples.strip().splitlines())
            lines += ["```bash", shown, "```", ""]
    return "\n".join(lines)


class _Taken(Exception):
    """Carries the parser out of a call that would parse by it."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def _parser(module: str, name: str) -> argparse.ArgumentParser | None:
    """Return the parser that a library has for a command; None if it is not for that library."""
    before = argparse.ArgumentParser.print_help

    def take(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Taken(parser)

    argparse.ArgumentParser.print_help = take  # type: ignore[method-assign, assignment]
    try:
        getattr(import_module(module).GLUE, RUNS[name])(["--help"], f"sparseml {name}")
    except _Taken as taken:
        return taken.parser
    except RunError:
        return None
    finally:
        argparse.ArgumentParser.print_help = before  # type: ignore[method-assign]
    raise RuntimeError(f"sparseml {name} did not print its help")


def _row(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.dest}`"
    values = ""
    if action.choices is not None:
        values = " " + ", ".join(f"`{one}`" if str(one) else "nothing" for one in action.choices)
    elif action.nargs != 0:
        metavar = action.metavar or action.dest.upper()
        values = f" `{metavar if isinstance(metavar, str) else ' '.join(metavar)}`"
    keywords = {**vars(action), "prog": "sparseml"}
    text = " ".join(((action.help or "") % keywords).split()).replace("|", "\\|")
    return f"| {names}{values} | {text} |"


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "100")
    main()
