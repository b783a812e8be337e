"""What a report says one can do now: the commands are there, and the code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from torch import nn

from sparseml.cli import main
from sparseml.pytorch.units.saved import save_shrunk
from sparseml.report import Layer, RunDirectory, Variant, read_run, write_report
from sparseml.report.next_steps import Step, next_steps


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """Read a line as the command does: which command it is, and its parameters."""
    words = shlex.split(command)
    assert words.pop(0) == "sparseml"
    chosen: Any = main
    context = click.Context(main)
    while isinstance(chosen, click.Group):
        name, chosen, words = chosen.resolve_command(context, words)
        assert chosen is not None
    return str(name), chosen.make_context(name, list(words)).params


def made(
    folder: Path, model: str | None, zeros: float, accuracy: float = 0.9, **shrunk: Variant
) -> Path:
    """A run of ten weights."""
    config = {} if model is None else {"model": model}
    with RunDirectory.start(folder, config=config) as run:
        run.save_model(nn.Linear(5, 2))
        variants = {
            "dense": Variant(metrics={"accuracy": 0.9}, samples=1000, trained=True),
            "sparse": Variant(metrics={"accuracy": accuracy}, samples=1000),
        }
        layers = [Layer(name="weight", parameters=1000, zeros=int(1000 * zeros), asked=zeros)]
        run.write_result({**variants, **shrunk}, layers=layers)
    return folder


def commands(steps: list[Step]) -> list[tuple[str, dict[str, Any]]]:
    return [parsed(step.code) for step in steps if step.language == "console"]


@pytest.mark.parametrize("model", ["resnet18", "hf:my model", "my.code:build"])
@pytest.mark.parametrize("accuracy", [0.9, 0.5, 0.1])
def test_every_command_is_one(tmp_path: Path, model: str, accuracy: float) -> None:
    folder = made(tmp_path / "it's a <run>", model, 0.9, accuracy)
    found = commands(next_steps(read_run(folder)))
    assert [name for name, _ in found] == ["export", "bench", "list", "new"]
    export, bench, listed, new = (parameters for _, parameters in found)
    assert export["source"] == str(folder) and export["file"] == str(folder / "model.onnx")
    assert bench["sources"] == (f"{folder}:dense", str(folder))
    assert listed["words"] == ("structured",)
    assert new["model"] == ("timm:resnet18" if model == "resnet18" else model)
    assert (new["method"], new["sparsity"], new["epochs"]) == (
        ("cap", 0.95, None) if accuracy == 0.9 else ("magnitude", 0.9, 30.0)
    )


@pytest.mark.parametrize("zeros", [0.001, 0.3, 0.5, 0.6, 0.99, 0.999])
def test_what_to_try_next_can_be_asked_for(tmp_path: Path, zeros: float) -> None:
    for number, accuracy in enumerate((0.9, 0.5)):
        run = read_run(made(tmp_path / str(number), "resnet18", zeros, accuracy))
        *_, (_, new) = commands(next_steps(run))
        assert 0 < new["sparsity"] < 1


def test_structured_recipes_are_there(tmp_path: Path) -> None:
    from click.testing import CliRunner

    steps = next_steps(read_run(made(tmp_path / "run", "resnet18", 0.5)))
    (code,) = [step.code for step in steps if "recipe list" in step.code]
    assert "recipe:timm/structured/resnet" in CliRunner().invoke(main, shlex.split(code)[1:]).output


def test_the_weights_are_loaded_as_told(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", None, 0.5)
    steps = next_steps(read_run(folder))
    (code,) = [step.code for step in steps if step.language == "python"]
    scope: dict[str, Any] = {"model": nn.Linear(5, 2)}
    exec(code, scope)  # noqa: S102
    again: dict[str, Any] = {"model": nn.Linear(5, 2)}
    exec(code, again)  # noqa: S102
    assert torch.equal(scope["model"].weight, again["model"].weight)
    # nothing says how the model is built, so no command can
    assert [name for name, _ in commands(steps)] == ["list"]


def test_a_smaller_model_is_loaded_as_told(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", "my.code:build", 0.5, shrunk=Variant(parameters=5))
    model = nn.Linear(5, 2)
    save_shrunk(model, folder / "shrunk")
    steps = next_steps(read_run(folder))
    scope: dict[str, Any] = {"model": nn.Linear(5, 2)}
    exec(steps[0].code, scope)  # noqa: S102
    assert torch.equal(scope["model"].weight, model.weight)
    # it is smaller already
    assert not any("structured" in step.code for step in steps)


def test_transformers_load_by_the_class_that_the_folder_names(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", "hf:bert", 0.5)
    (folder / "model").mkdir()
    file = folder / "model" / "config.json"
    file.write_text('{"architectures": ["BertForMaskedLM"]}')
    code = next_steps(read_run(folder))[0].code
    assert code.splitlines()[0] == "from transformers import BertForMaskedLM"
    file.write_text('{"architectures": ["os; import evil"]}')
    assert "evil" not in next_steps(read_run(folder))[0].code


def test_pages_show_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = write_report(made(tmp_path / "runs" / "one", "resnet18", 0.5))
    for text in (files.html.read_text(), files.markdown.read_text()):
        assert "What you have now" in text
        assert "sparseml export runs/one --onnx runs/one/model.onnx" in text
    assert re.search(r"^```console\nsparseml bench", files.markdown.read_text(), re.MULTILINE)


def test_nothing_is_offered_of_an_empty_run(tmp_path: Path) -> None:
    RunDirectory.start(tmp_path / "bare", config={"model": "resnet18"})
    assert next_steps(read_run(tmp_path / "bare")) == []
