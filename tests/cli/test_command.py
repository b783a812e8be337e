"""The command as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sparseml.version import __version__

HEAVY = ("torch", "yaml", "pydantic", "rich", "numpy", "timm", "transformers")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import sparseml.cli; sparseml.cli.main()", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("arguments", [["--help"], ["recipe", "--help"], ["recipe", "check", "-h"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([n for n in {HEAVY} if n in sys.modules], file=sys.stderr))"
        "\nimport sparseml.cli; sparseml.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert "Usage:" in done.stdout


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
