"""TensorBoard and Weights & Biases behind the scripts."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TRAIN, ONE_SHOT = "sparse_training.py", "one_shot_pruning.py"
SPARSITY = "ParamPruning/body.0.weight"
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
    assert settings["config"]["lr"] == 0.1 and settings["dir"] == str(workplace / "out/run")
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
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    call(TRAIN, *training, "--log-tensorboard", "--log-param-histogram")
    events = EventAccumulator(str(workplace / "out/run/tensorboard"), {"histograms": 0})
    events.Reload()
    expected = [row["eval/top1"] for row in _summary(workplace / "out/run")]
    found = [(one.step, one.value) for one in events.Scalars("epoch/eval/top1")]
    assert [step for step, _ in found] == [5, 11, 17, 23]
    assert [value for _, value in found] == pytest.approx(expected)
    assert len(events.Scalars("train/loss")) == 4 and SPARSITY in events.Tags()["scalars"]
    assert [one.step for one in events.Histograms("head.weight")] == [0, 1, 2, 3]


def test_what_wandb_has_written_of_a_training(
    training: list[Any], call: Any, workplace: Path, stored_runs: Any
) -> None:
    flags = [*training, "--log-wandb", "--log-param-histogram", "--project", "mine"]
    flags += ["--checkpoint-freq", 2]
    call(TRAIN, *flags)
    out = workplace / "out/run"
    (out / "checkpoints/small_epoch=1.pth").replace(out / "checkpoints/small_last.pth")
    call(TRAIN, *flags, "--resume", "out/run")
    assert not (workplace / "wandb").exists(), "all files go into the folder of the run"
    whole, resumed = stored_runs(out)
    assert whole.name == resumed.name and whole.exit_code == resumed.exit_code == 0
    assert (whole.project, whole.display) == (resumed.project, resumed.display) == ("mine", "run")
    assert whole.config["lr"] == 0.1 and whole.config["sparseml_recipe"] == "gradual.yaml"
    summary = _summary(out)
    for run, steps in ((whole, [5, 11, 17, 23]), (resumed, [17, 23])):
        epochs = [row for row in run.rows if "eval/top1" in row]
        assert [row["_step"] for row in epochs] == steps
        for row, expected in zip(epochs, summary[-len(steps) :], strict=True):
            expected.pop("images_per_second", None)  # the resumed run had its own
            assert {key: row[key] for key in expected} == pytest.approx(expected)
            assert row["histogram/head.weight/_type"] == "histogram"
            assert row["step/loss"] > 0
    sparse = {row["_step"]: s for row in whole.rows if (s := row.get(SPARSITY)) is not None}
    assert min(sparse) == 0 and sparse[max(sparse)] == pytest.approx(0.8, abs=0.2)


def test_what_wandb_has_written_of_one_shot_and_of_a_failure(
    flags: list[Any], training: list[Any], call: Any, workplace: Path, stored_runs: Any
) -> None:
    given = ["--recipe", "gradual.yaml", "--sparsities", 0.5, 0.75, "--latency-rounds", 0]
    call(ONE_SHOT, *flags, *given, "--log-wandb")
    (run,) = stored_runs(workplace / "out/run")
    found = json.loads((workplace / "out/run/results.json").read_text())["results"]
    rows = [{key: row[key] for key in found[0] if key != "file"} for row in run.rows]
    assert rows == [pytest.approx({k: v for k, v in row.items() if k != "file"}) for row in found]
    assert run.config["sparsities"] == [0.5, 0.75] and run.exit_code == 0
    call(TRAIN, *training, "--log-wandb", "--lr", 1e30, "--experiment", "bad", fails=True)
    (failed,) = stored_runs(workplace / "out/bad")
    assert failed.exit_code == 1


def test_a_disabled_service_writes_nothing(
    flags: list[Any], call: Any, workplace: Path, stored_runs: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    given = ["--recipe", "gradual.yaml", "--sparsities", 0.5, "--latency-rounds", 0]
    call(ONE_SHOT, *flags, *given, "--log-wandb")
    assert stored_runs(workplace) == []
