"""``sparseml prune`` and ``sparseml train`` do what the scripts do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from sparseml.cli import main


@pytest.mark.parametrize(
    ("command", "script", "more", "weights"),
    [
        ("prune", "one_shot_pruning.py", ["--sparsities", 0.5], "sparsity=0.5/model.safetensors"),
        ("train", "sparse_training.py", ["-b", 8, "--epochs", 4], "model.safetensors"),
    ],
)
def test_the_command_equals_the_script(
    flags: list[Any],
    call: Any,
    workplace: Path,
    command: str,
    script: str,
    more: list[Any],
    weights: str,
) -> None:
    flags += ["--recipe", "gradual.yaml", *more]
    called = call(script, *flags)
    done = CliRunner().invoke(main, [command, *map(str, flags), "--experiment", "command"])
    assert done.exit_code == 0, done.output
    assert done.stdout == called.out
    by_script, by_command = (
        load_file(workplace / "out" / name / weights) for name in ("run", "command")
    )
    assert all(torch.equal(value, by_command[key]) for key, value in by_script.items())


def test_mistakes_and_names_of_recipes(flags: list[Any], workplace: Path) -> None:
    invoke = CliRunner().invoke
    given = list(map(str, flags))
    done = invoke(main, ["prune", *given, "--recipe", "recipe:timm/one_shot/gm/resnet"])
    assert done.exit_code == 2 and "error: recipe:timm/one_shot/gm/resnet: Global" in done.stderr
    done = invoke(main, ["train", *given, "--recipe", "recipe:timm/none"])
    assert done.exit_code == 2 and "error: recipe:timm/none: no such recipe" in done.stderr
    done = invoke(main, ["prune", *given, "--model", "timm:resnt18", "--recipe", "gradual.yaml"])
    assert done.exit_code == 2 and "did you mean 'resnet18" in done.stderr
