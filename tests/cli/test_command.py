"""The command as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sparseml.version import __version__

START = "import sparseml.cli; sparseml.cli.main()"
HEAVY = ("torch", "yaml", "pydantic", "rich", "numpy", "timm", "transformers")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["recipe", "--help"],
        ["recipe", "check", "-h"],
        ["prune", "--help"],
        ["train", "-h"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr))"
        f"\n{START}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert "usage: " in done.stdout.lower()


def test_version() -> None:
    assert __version__ in run("--version").stdout


def test_a_mistake_gives_code_two_one_line_and_no_output() -> None:
    done = run("recipe", "check", "missing.yaml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("missing.yaml: ")
    assert done.stderr.count("\n") == 1


def test_unknown_subcommand() -> None:
    done = run("recipe", "chek")
    assert done.returncode == 2
    assert "chek" in done.stderr


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("command", [["check"], ["check", "--all"], ["show"], ["check", "--json"]])
def test_letters_that_the_terminal_lacks(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "modifiers:\n  - !ConstantPruningModifier {params: ['re:gr\u00f6\u00dfe.*']}\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-c", START, "recipe", *command, str(tmp_path / "recipe.yaml")],
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert b"ConstantPruningModifier" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize("words", [["recipe", "list"], ["--help"]])
def test_a_full_device_takes_a_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", START, *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == "error: the results cannot be written: No space left on device\n"


def test_a_reader_that_leaves_takes_none() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", START, "recipe", "list"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 1
    process.stderr.close()
