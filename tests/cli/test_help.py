"""What ``--help`` prints, for every command."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sparseml.cli import main


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        if child.hidden:
            continue
        yield from commands(child, (*path, name))


def shown(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    return CliRunner().invoke(main, [*path, "--help"], prog_name="sparseml").stdout


def examples(text: str) -> list[list[str]]:
    joined = re.sub(r"\\\n\s*", "", text)
    return [shlex.split(line)[1:] for line in joined.splitlines() if re.match(" +sparseml ", line)]


PATHS = [path for path in commands(main) if path[-1:] not in (("prune",), ("train",))]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_full_lines_and_examples(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(path, monkeypatch)
    assert "..." not in re.sub(r"\[\w+\]\.\.\.|(RUN_DIR|MODEL)\.\.\.", "", text)
    assert max(map(len, text.splitlines())) <= 80
    found = examples(text)
    assert found and all(tuple(example[: len(path)]) == path or path == () for example in found)


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_examples_run(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pruning.yaml").write_text("{end_step: 100}")  # settings of Intel's pruner
    steps = tmp_path / "profiles/0.8_std_naming"  # of grow-and-prune
    steps.mkdir(parents=True)
    for number, masked in enumerate("ab"):
        text = f"rho: 0.001\nprune_ratios: {{a: 0.8, b: 0.8}}\nmasked_layers: {{{masked}: 0.8}}"
        (steps / f"step_{number}.yaml").write_text(text)
    for example in examples(shown(path, monkeypatch)):
        if example[0] == "recipe" and path != ():
            done = CliRunner().invoke(main, example)
            assert done.exit_code == 0, done.output
        else:  # needs runs that have been made
            assert main.get_command(click.Context(main), example[0])


RUNS = ("prune", "train")


@pytest.mark.parametrize("command", RUNS)
def test_examples_of_runs_are_flags_that_there_are(command: str, capsys: Any) -> None:
    pytest.importorskip("timm")
    from sparseml.timm.glue import GLUE

    parse = GLUE.one_shot_settings if command == "prune" else GLUE.training_settings
    with pytest.raises(SystemExit):
        parse(["--help"], f"sparseml {command}")
    found = examples(capsys.readouterr().out)
    given = [parse(one[1:], None) for one in found if "--config" not in one]
    assert len(found) > len(given) >= 2
    assert "resnet18" in [settings.model.model for settings in given]


@pytest.mark.parametrize(
    ("library", "command"),
    [
        *((library, command) for library in ("timm", "transformers") for command in RUNS),
        ("fairseq", "prune"),
    ],
)
def test_the_flags_of_every_library_tell_of_the_others(
    library: str, command: str, capsys: Any
) -> None:
    glue = importlib.import_module(f"sparseml.{library}.glue").GLUE
    parse = glue.one_shot_settings if command == "prune" else glue.training_settings
    with pytest.raises(SystemExit):
        parse(["--help"], f"sparseml {command}")
    text = capsys.readouterr().out
    assert "--model hf:DIR" in text.split("options:")[0]
    assert "fairseq" in text.split("options:")[0]
    given = [parse(one[1:], None) for one in examples(text) if "--config" not in one]
    assert len(given) >= 2
