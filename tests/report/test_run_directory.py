"""Writing a run directory."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

from sparseml.pytorch.utils.model import read_model_file
from sparseml.report import NotARunError, RunDirectory, is_run, read_run
from sparseml.utils.locks import FolderInUseError


def content(path: Path, name: str) -> dict:
    return json.loads((path / name).read_text())


def test_start_writes_what_is_known_at_once(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path / "a" / "b", config={"lr": 0.1, "shape": (1, 2)}, seed=3)
    assert is_run(run.path)
    info = content(run.path, "run.json")
    assert info["format"] == "sparseml-run/1"
    assert info["name"] == "b"
    assert info["status"] == "running"
    assert content(run.path, "config.json") == {"lr": 0.1, "shape": [1, 2], "seed": 3}
    environment = content(run.path, "environment.json")
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert environment["threads"] == torch.get_num_threads()


def test_a_run_is_not_replaced_by_accident(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path / "a", "first")
    run.write_recipe("modifiers: []")
    run.checkpoints.mkdir()
    (run.checkpoints / "last.pt").touch()
    (run.path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        RunDirectory.start(tmp_path / "a")
    assert content(run.path, "run.json")["name"] == "first"
    RunDirectory.start(tmp_path / "a", "second", overwrite=True)
    kept = {file.name for file in run.path.iterdir()}
    assert kept == {".lock", "run.json", "config.json", "environment.json", "mine.txt"}


def test_only_runs_can_be_continued(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="no such folder"):
        RunDirectory(tmp_path / "missing")
    with pytest.raises(NotARunError, match=r"no run\.json"):
        RunDirectory(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotARunError, match="is a file"):
        RunDirectory(tmp_path / "file")


def test_the_block_tells_how_the_run_ended(tmp_path: Path) -> None:
    with RunDirectory.start(tmp_path / "good") as good:
        pass
    assert content(good.path, "run.json")["status"] == "finished"
    with pytest.raises(ZeroDivisionError), RunDirectory.start(tmp_path / "bad") as bad:
        1 / 0  # noqa: B018
    info = content(bad.path, "run.json")
    assert (info["status"], info["error"]) == ("failed", "ZeroDivisionError: division by zero")
    with pytest.raises(KeyboardInterrupt), RunDirectory.start(tmp_path / "ugly") as ugly:
        raise KeyboardInterrupt
    assert content(ugly.path, "run.json")["status"] == "interrupted"


def test_results_add_up(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path)
    run.write_result({"dense": {"metrics": {"accuracy": numpy.float32(0.5)}}}, layers=[])
    run.write_result({"dense": {"parameters": 7}, "sparse": {"nonzero": 3}}, notes=["a note"])
    assert content(tmp_path, "result.json") == {
        "variants": {
            "dense": {"metrics": {"accuracy": 0.5}, "parameters": 7},
            "sparse": {"nonzero": 3},
        },
        "layers": [],
        "notes": ["a note"],
    }


def test_undefined_numbers_survive(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path)
    metrics = {"loss": torch.tensor(float("nan")), "perplexity": math.inf}
    run.write_result({"sparse": {"metrics": metrics}})
    assert content(tmp_path, "result.json")["variants"]["sparse"]["metrics"] == {
        "loss": "NaN",
        "perplexity": "Infinity",
    }
    found = read_run(tmp_path).result.variants["sparse"].metrics
    assert math.isnan(found["loss"])
    assert found["perplexity"] == math.inf


def test_resuming_drops_what_will_be_logged_again(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path)
    for step in range(6):
        run.metrics().log_scalar("loss", step, step=step)
    log = RunDirectory(tmp_path).metrics(resume_step=4)
    log.log_scalar("loss", 40, step=4)
    assert read_run(tmp_path).metrics.series == {
        "loss": [(0, 0), (1, 1), (2, 2), (3, 3), (4, 40)],
    }


def test_models_are_named_by_their_form(tmp_path: Path) -> None:
    run = RunDirectory.start(tmp_path)
    model = torch.nn.Linear(2, 2)
    assert run.save_model(model, recipe="modifiers: []") == tmp_path / "model.safetensors"
    assert run.save_model(model, variant="shrunk") == tmp_path / "model_shrunk.safetensors"
    assert read_model_file(tmp_path / "model.safetensors")["recipe"] == "modifiers: []"


def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.start(tmp_path, config={"lr": 1})
    files = {file.name for file in tmp_path.iterdir()}

    def disk_full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left"):
        run.write_config({"lr": 2})
    monkeypatch.undo()
    assert content(tmp_path, "config.json") == {"lr": 1}
    assert {file.name for file in tmp_path.iterdir()} == files


KILLED = """
import sys
from sparseml.report import RunDirectory
run = RunDirectory.start(sys.argv[1], config={"number": 0})
log = run.metrics()
number = 0
while True:
    number += 1
    log.log_scalar("loss", number, step=number)
    run.write_config({"number": number, "ballast": "x" * 5000})
    run.write_result({"sparse": {"metrics": {"accuracy": number / 1e6}}}, layers=[])
    print(number, flush=True)
"""


def test_a_killed_run_can_be_read(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(25):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    run = read_run(tmp_path / "run")
    assert run.info.status == "running"
    assert run.config["number"] >= last
    assert run.metrics.series["loss"][last - 1] == (last, last)
    assert run.result.variants["sparse"].metrics["accuracy"] >= last / 1e6
    assert all("missing" in problem or "no layers" in problem for problem in run.problems)


@pytest.mark.parametrize("text", ['{"variants": {"dense"', "[" * 100_000, "[1]", ""])
def test_a_damaged_file_stands_in_nobodys_way(tmp_path: Path, text: str) -> None:
    run = RunDirectory.start(tmp_path, "first")
    for name in ("result.json", "run.json"):
        (tmp_path / name).write_text(text)
    with RunDirectory(run.path) as again:
        again.write_result(notes=["measured again"])
    assert content(tmp_path, "result.json")["notes"] == ["measured again"]
    info = content(tmp_path, "run.json")
    assert info["status"] == "finished" and info["format"] and info["name"] == tmp_path.name
    assert (tmp_path / "result.json.damaged").read_text() == text  # nothing is lost
    assert not any("cannot be read" in problem for problem in read_run(tmp_path).problems)


def test_a_run_is_gone_on_with_where_its_first_file_is_lost(tmp_path: Path) -> None:
    assert RunDirectory.resume(tmp_path / "none") is None
    (tmp_path / "mine.txt").touch()
    assert RunDirectory.resume(tmp_path) is None
    run = RunDirectory.start(tmp_path, "first")
    again = RunDirectory.resume(tmp_path)
    assert again is not None and content(tmp_path, "run.json")["name"] == "first"
    run.write_result(notes=["as it was"])
    (tmp_path / "run.json").unlink()
    again = RunDirectory.resume(tmp_path)
    assert again is not None
    with again:
        assert content(tmp_path, "run.json")["status"] == "running"
    assert content(tmp_path, "result.json")["notes"] == ["as it was"]
    assert read_run(tmp_path).info.status == "finished"


def test_nothing_is_written_where_another_process_writes(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as another process does
        with pytest.raises(FolderInUseError):
            RunDirectory.resume(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "result.json"}


def test_what_ended_a_run_is_told_also_where_it_cannot_be_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    with pytest.raises(ValueError, match="the real reason"), RunDirectory.start(tmp_path):
        monkeypatch.setattr("sparseml.report.run_directory._write_json", full)
        raise ValueError("the real reason")
