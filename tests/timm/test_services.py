"""TensorBoard and Weights & Biases behind the scripts."""

from __future__ import annotations

import csv
import importlib.util
import json
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TRAIN, ONE_SHOT = "sparse_training.py", "one_shot_pruning.py"
COLUMNS = {
    "epoch", "train/loss", "eval/loss", "eval/top1", "eval/top5", "lr", "sparsity", "total",
    "sparse", "sparsity_percent", "prunable", "prunable_sparse", "prunable_sparsity_percent",
}  # fmt: skip


@pytest.fixture
def training(flags: list[Any]) -> list[Any]:
    """Flags for four epochs of six steps with the gradual recipe."""
    more = ["--sparseml-recipe", "gradual.yaml", "-b", 8, "--lr", 0.1, "--warmup-epochs", 0]
    return [*flags, *more, "--epochs", 4]


class Service(ModuleType):
    """In place of the package: remembers what it was told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.settings: list[dict[str, Any]] = []
        self.rows: dict[int, dict[str, Any]] = {}
        self.ended: list[int] = []
        self.Histogram = len

    def init(self, **settings: Any) -> None:
        self.settings.append(settings)
        self.rows.clear()

    def log(self, numbers: dict[str, Any], step: int) -> None:
        assert step >= max(self.rows, default=0), "the service drops what comes late"
        self.rows.setdefault(step, {}).update(numbers)

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """The service that the scripts will import."""
    module = Service()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def _summary(folder: Path) -> list[dict[str, float]]:
    with (folder / "summary.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_every_epoch_is_a_row_as_in_the_summary(
    training: list[Any], call: Any, workplace: Path, service: Service
) -> None:
    call(TRAIN, *training, "--log-wandb", "--log-param-histogram", "--project", "mine")
    (settings,) = service.settings
    assert (settings["project"], settings["name"]) == ("mine", "run")
    assert settings["config"]["sparseml_recipe"] == "gradual.yaml"
    assert settings["config"]["lr"] == 0.1 and settings["dir"] == "out/run"
    rows = [row for row in service.rows.values() if "eval/top1" in row]
    summary = _summary(workplace / "out/run")
    assert len(rows) == 4 and rows[0].keys() >= COLUMNS
    for row, expected in zip(rows, summary, strict=True):
        assert {key: row[key] for key in expected} == pytest.approx(expected)
    assert rows[0]["histogram/head.weight"] == 24
    assert rows[-1]["histogram/body.4.weight"] < rows[0]["histogram/body.4.weight"]
    assert [step for step, row in service.rows.items() if "eval/top1" in row] == [5, 11, 17, 23]
    assert all("step/loss" in service.rows[step] for step in (5, 11, 17, 23))
    assert any("ParamPruning/body.0.weight" in row for row in service.rows.values())
    assert service.ended == [0]


def test_a_resumed_run_goes_on_in_the_service(
    training: list[Any], call: Any, workplace: Path, service: Service
) -> None:
    flags = [*training, "--log-wandb", "--checkpoint-freq", 2]
    call(TRAIN, *flags)
    out = workplace / "out/run/checkpoints"
    (out / "small_epoch=1.pth").replace(out / "small_last.pth")
    call(TRAIN, *flags, "--resume", "out/run")
    call(TRAIN, *flags, "--overwrite", "--epochs", 4)
    first, resumed, anew = (settings["id"] for settings in service.settings)
    assert first == resumed != anew
    assert all(settings["resume"] == "allow" for settings in service.settings)


def test_a_run_that_fails_is_marked(
    training: list[Any], call: Any, workplace: Path, service: Service
) -> None:
    call(TRAIN, *training, "--log-wandb", "--lr", 1e30, fails=True)
    assert service.ended == [1]
    assert json.loads((workplace / "out/run/run.json").read_text())["status"] == "failed"


def test_every_sparsity_is_a_row(
    flags: list[Any], call: Any, workplace: Path, service: Service
) -> None:
    given = ["--recipe", "gradual.yaml", "--sparsities", 0.5, 0.75, "--latency-rounds", 0]
    call(ONE_SHOT, *flags, *given, "--log-wandb")
    found = json.loads((workplace / "out/run/results.json").read_text())["results"]
    assert [row["sparsity"] for row in service.rows.values()] == [0.0, 0.5, 0.75]
    assert [row["val/acc"] for row in service.rows.values()] == [row["val/acc"] for row in found]
    assert service.ended == [0]


@pytest.mark.parametrize("script", [TRAIN, ONE_SHOT])
def test_a_service_that_is_missing_or_refuses(
    flags: list[Any], call: Any, service: Service, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    def refuse(**settings: Any) -> None:
        raise RuntimeError("No API key\nlog in first")

    monkeypatch.setattr(service, "init", refuse)
    given = [*flags, "--recipe", "gradual.yaml", "--overwrite"]
    given += ["--epochs", 4, "-b", 8] if script == TRAIN else []
    done = call(script, *given, "--log-wandb", fails=True)
    assert done.status == 2
    assert "error: --log-wandb: No API key; log in first\n" in done.error
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = call(script, *given, "--log-wandb", fails=True)
    assert "error: --log-wandb: WANDBLogger needs wandb: pip install sparseml-next" in done.error
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    done = call(script, *given, "--log-tensorboard", fails=True)
    assert "error: --log-tensorboard: TensorBoardLogger needs tensorboard: pip" in done.error


def test_tensorboard_and_histograms(training: list[Any], call: Any, workplace: Path) -> None:
    pytest.importorskip("tensorboard")
    call(TRAIN, *training, "--log-tensorboard", "--log-param-histogram")
    events = list((workplace / "out/run/tensorboard").iterdir())
    assert events and events[0].stat().st_size > 1000


def _records(path: Path) -> list[Any]:
    """What the package wrote: its messages in the format of LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            found.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return found


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_service_itself(
    training: list[Any], run: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    output = run(TRAIN, *training, "--log-wandb", "--log-param-histogram")
    assert "epoch 4/4  train loss" in output and "Traceback" not in output
    assert not (workplace / "wandb").exists(), "all files go into the folder of the run"
    files = list((workplace / "out/run/wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == (mode == "offline")
    for file in files:
        rows = [
            {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            for record in _records(file)
            if record.WhichOneof("record_type") == "history"
        ]
        epochs = [row for row in rows if "eval/top1" in row]
        assert [int(row["_step"]) for row in epochs] == [5, 11, 17, 23]
        expected = [row["eval/top1"] for row in _summary(workplace / "out/run")]
        assert [float(row["eval/top1"]) for row in epochs] == pytest.approx(expected)
