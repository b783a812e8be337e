"""How runs end before their end: signals, errors of others, streams that nobody reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = "sparse_training.py"
STEPS, LAST = 6, "out/run/checkpoints/small_last.pth"
MORE_CODE = """
import os
import torch


class Ending(Small):
    def __init__(self, num_classes=3):
        super().__init__(num_classes)
        self.calls = 0

    def forward(self, images):
        self.calls += self.training
        if self.training and self.calls == int(os.environ.get("ENDS_AT", 0)):
            what = os.environ["ENDS_BY"]
            if what.isdigit():
                os.kill(os.getpid(), int(what))
            else:
                raise ZeroDivisionError(what)
        return super().forward(images)


def small(**kwargs):
    return Ending(**kwargs)
"""


@pytest.fixture
def given(flags: list[Any], workplace: Path) -> list[Any]:
    """Flags of a training of four epochs of six steps, whose model ends it when it is told to."""
    with (workplace / "own_code.py").open("a") as file:
        file.write(MORE_CODE)
    more = ["--sparseml-recipe", "gradual.yaml", "-b", 8, "--lr", 0.1, "--opt", "adamw"]
    return [*flags, *more, "--epochs", 4, "--log-interval", 1, "--mixup", 0.2]


def _lines(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """Return what a line of metrics says, without what the clock does."""
    values = {k: v for k, v in line.get("values", {}).items() if "per_second" not in k}
    return {**{k: v for k, v in line.items() if "time" not in k}, "values": values}


@pytest.mark.parametrize(("number", "at"), [(signal.SIGTERM, 10), (signal.SIGINT, 12)])
def test_a_signal_saves_after_the_step_and_resuming_gives_the_same(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch, number: int, at: int
) -> None:
    call(SCRIPT, *given)
    whole, told = torch.load(LAST, weights_only=True), _lines("out/run")
    monkeypatch.setenv("ENDS_AT", str(at))
    monkeypatch.setenv("ENDS_BY", str(int(number)))
    done = call(SCRIPT, *given, "--overwrite", fails=True)
    where = f"epoch 2, step {at - STEPS + 1}"
    end = f"stopped by {number.name}; --resume {Path('out/run')} goes on from {where}"
    assert done.status == 128 + number and done.error.splitlines()[-1] == end
    assert json.loads(Path("out/run/run.json").read_text())["status"] == "interrupted"
    monkeypatch.delenv("ENDS_AT")
    assert call(SCRIPT, *given, "--resume", "out/run").status == 0
    resumed = torch.load(LAST, weights_only=True)
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    found = _lines("out/run")
    assert [line.get("step") for line in found] == [line.get("step") for line in told]
    assert [_plain(line) for line in found] == [_plain(line) for line in told]


def test_an_error_of_the_model_takes_two_lines(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS_AT", "10")
    monkeypatch.setenv("ENDS_BY", "of mine")
    done = call(SCRIPT, *given, fails=True)
    told = [line for line in done.error.splitlines() if "epoch" not in line[:6]]
    assert done.status == 1 and "Traceback" not in done.error
    assert "error: ZeroDivisionError: of mine (own_code.py:" in told[-2]
    assert told[-1].endswith("error.txt; --resume out/run goes on from epoch 2")
    assert "in forward" in Path("out/run/error.txt").read_text()
    assert json.loads(Path("out/run/run.json").read_text())["status"] == "failed"


def test_before_the_first_checkpoint_messages_do_not_point_at_each_other(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS_AT", "2")
    monkeypatch.setenv("ENDS_BY", "early")
    assert "no checkpoint was written yet" in call(SCRIPT, *given, fails=True).error
    monkeypatch.delenv("ENDS_AT")
    again = call(SCRIPT, *given, fails=True)
    assert again.status == 2 and "--resume" not in again.error and "--overwrite" in again.error
    resumed = call(SCRIPT, *given, "--resume", "out/run", fails=True)
    assert resumed.status == 2 and "before its first checkpoint" in resumed.error
    assert call(SCRIPT, *given, "--overwrite").status == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize("broken", ["pipe", "full"])
def test_a_run_goes_on_when_nobody_reads_what_it_tells(given: list[Any], broken: str) -> None:
    script = Path(__file__).resolve().parents[2] / "research" / SCRIPT
    words = [sys.executable, script, *given, "--epochs", 1, "--recipe-args", "epochs=1"]
    words = list(map(str, words))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    if broken == "full":
        with open("/dev/full", "w") as full:
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=environment)
            status, error = done.returncode, done.stderr
    else:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        error, status = process.stderr.read(), process.wait()
        process.stderr.close()
    assert status == 0, error.decode()
    assert Path("out/run/result.json").exists() and Path("out/run/masks.safetensors").exists()


def test_names_that_lead_elsewhere_or_are_no_text(given: list[Any], call: Any) -> None:
    done = call(SCRIPT, *given, "--experiment", "../../elsewhere", fails=True)
    assert done.status == 2 and "--experiment must be a name below --output" in done.error
    done = call(SCRIPT, *given, "--output", b"o\xff".decode("utf-8", "surrogateescape"), fails=True)
    assert done.status == 2 and r"--output must be UTF-8, found 'o\udcff'" in done.error
