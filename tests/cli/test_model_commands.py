"""``sparseml export``, ``bench`` and ``doctor``."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from click.testing import CliRunner, Result
from torch import nn

import sparseml
from sparseml.cli import main
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.shrink import save_shrunk
from sparseml.pytorch.utils import load_model
from sparseml.report import RunDirectory


def call(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model lost half of its hidden neurons."""
    path = tmp_path_factory.mktemp("runs") / "run"
    torch.manual_seed(0)
    model: Any = timm.create_model("test_vit", num_classes=3, img_size=32).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc1.weight[::2] = 0.0
            block.mlp.fc1.bias[::2] = 0.0
    config = {"model": "timm:test_vit", "num_classes": 3, "model_kwargs": {"img_size": 32}}
    with RunDirectory.start(path, config=config) as run:
        run.save_model(model)
    sparseml.shrink(model, torch.randn(1, 3, 32, 32))
    told = {"library": "timm", "name": "test_vit", "kwargs": {"num_classes": 3, "img_size": 32}}
    save_shrunk(model, path / "shrunk", told)
    return path


def _parameters(model: nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


def test_a_run_is_written_as_onnx(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    for variant in ("shrunk", "sparse"):
        done = call("export", folder, "--onnx", tmp_path / f"{variant}.onnx", "--variant", variant)
        assert done.exit_code == 0, done.output
        assert f"{variant}.onnx: " in done.stdout and "differ by" in done.stdout
    files = [tmp_path / f"{name}.onnx" for name in ("shrunk", "sparse")]
    assert files[0].stat().st_size < 0.9 * files[1].stat().st_size
    done = call("bench", *files, f"{folder}:sparse", "--rounds", 2, "--batch", 2, "--json")
    assert done.exit_code == 0, done.output
    shrunk, sparse, model = (one["parameters"] for one in json.loads(done.stdout)["models"])
    assert shrunk < sparse and abs(sparse - model) < 0.02 * model
    files[0].write_bytes(b"no model")
    done = call("bench", files[0])
    assert done.exit_code == 2 and "shrunk.onnx is no ONNX file: " in done.output


def test_models_of_a_run_are_timed_in_turns(folder: Path) -> None:
    models = [f"{folder}:dense", f"{folder}:sparse", folder]
    done = call("bench", *models, "--rounds", 3, "--batch", 4, "--json")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""  # as no terminal is attached
    found = json.loads(done.stdout)
    dense, sparse, shrunk = found["models"]
    assert found["batch"] == 4 and dense["speedup"] == 1.0
    assert dense["parameters"] == sparse["parameters"] > shrunk["parameters"]
    whole = timm.create_model("test_vit", num_classes=3, img_size=32)
    assert dense["parameters"] == _parameters(whole)
    low, high = shrunk["quartiles_ms"]
    assert 0 < low <= shrunk["median_ms"] <= high
    text = call("bench", *models, "--rounds", 2).stdout
    assert "speed-up" in text and f"{shrunk['parameters']:,}" in text


REMOVING = """
pruning_modifiers:
  - !StructuredPruningModifier
      params: __STRUCTURED__
      score: taylor
      remove: True
      init_sparsity: 0.0
      final_sparsity: {speedup: 2.0}
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 1.0
"""


def test_a_run_that_removed_units_has_one_model(folder: Path, tmp_path: Path) -> None:
    from sparseml.cli.finished import load_finished

    model, run = load_finished(str(folder)), tmp_path / "run"
    shutil.copytree(folder, run)
    RunDirectory(run).save_model(model, recipe=ScheduledModifierManager.from_yaml(REMOVING))
    images = torch.randn(2, 3, 32, 32)
    bare: Any = timm.create_model("test_vit", num_classes=3, img_size=32)
    load_model(run / "model.safetensors", bare)
    for found in (load_finished(str(run), "sparse"), bare.eval()):
        assert torch.equal(found(images), model(images))
    done = call("bench", f"{run}:sparse", run, "--rounds", 2, "--json")
    assert done.exit_code == 0, done.output
    sparse, shrunk = (one["parameters"] for one in json.loads(done.stdout)["models"])
    assert sparse == shrunk == _parameters(model)


def test_a_terminal_shows_how_far_timing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "timm:test_vit", "--rounds", "2"])
    assert "timing: 100%" in terminal.getvalue() and "7/7" in terminal.getvalue()


def test_images_have_the_size_that_they_had_in_the_run(tmp_path: Path) -> None:
    from sparseml.cli.finished import inputs_for, load_dense, load_finished

    model: Any = timm.create_model("test_resnet", num_classes=3)
    config = {"model": "test_resnet", "num_classes": 3, "img_size": 32}
    with RunDirectory.start(tmp_path / "run", config=config) as run:
        run.save_model(model)
    told = {"library": "timm", "name": "test_resnet", "kwargs": {"num_classes": 3}}
    save_shrunk(model, tmp_path / "run/shrunk", told)
    for folder in (tmp_path / "run", tmp_path / "run/shrunk"):
        assert inputs_for(load_finished(str(folder)), "", 2).shape == (2, 3, 32, 32)
    for model in (
        load_finished(str(tmp_path / "run"), "sparse"),
        load_dense(str(tmp_path / "run")),
    ):
        assert inputs_for(model, "", 2).shape == (2, 3, 32, 32)


def test_texts_have_the_length_asked_for(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        num_hidden_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=2000,
        max_position_embeddings=64,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    from sparseml.cli.finished import inputs_for, load_finished

    model = load_finished(str(tmp_path / "bert"))
    for length, expected in ((20, 20), (128, 64)):
        inputs = inputs_for(model, "", 2, length)
        assert inputs["input_ids"].shape == (2, expected)
        assert model(**inputs).logits.shape == (2, 2)
    done = call("bench", tmp_path / "bert", f"hf:{tmp_path / 'bert'}", "--rounds", 2)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["export", "none", "--onnx", "m.onnx"], "none: no such folder of a run or of a model"),
        (["export", "{run}", "--onnx", "m.pt"], "--onnx m.pt: must end in .onnx"),
        (["bench", "{run}:fast"], "after the colon comes dense, sparse or shrunk"),
        (["bench", "timm:test_vitt"], "did you mean 'test_vit'"),
        (["bench", "{run}", "timm:test_resnet", "timm:test_byobnet"], ""),
        (["bench", "timm:test_vit", "timm:vit_tiny_patch16_224"], "does not take the inputs of"),
        (["bench", "{empty}"], "holds neither a run nor a model: no run.json, no config.json"),
    ],
)
def test_wrong_input_is_told_in_one_line(
    folder: Path, tmp_path: Path, arguments: list[str], expected: str | None
) -> None:
    given = [one.format(run=folder, empty=tmp_path) for one in arguments]
    more = ["--rounds", 2] if given[0] == "bench" else []
    done = call(*given, *more)
    if not expected:  # as these take images of any size
        assert done.exit_code == 0, done.output
        return
    assert done.exit_code == 2 and expected in done.stderr, done.output
    assert len(done.stderr.splitlines()) == 1


def test_the_doctor_tells_what_is_there() -> None:
    found = json.loads(call("doctor", "--json").stdout)
    assert found["machine"]["torch"] == torch.__version__
    assert found["extras"]["timm"]["missing"] == []
    assert f"timm {timm.__version__}" in found["extras"]["timm"]["state"]
    assert "sparseml export" in call("doctor").stdout
