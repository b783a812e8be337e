"""Trainings by fairseq that a signal ends."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from fairseq.trainer import Trainer

from sparseml.run import processes


def test_a_signal_saves_and_going_on_gives_the_same(
    fairseq: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, train_step = "--max-epoch 3 --sparseml-output", Trainer.train_step
    whole = fairseq.train("whole", f"{flags} run_whole")
    monkeypatch.setattr(Trainer, "train_step", _sending(train_step, signal.SIGTERM, 8))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        fairseq.train("stopped", f"{flags} run")
    assert end.value.code == 128 + signal.SIGTERM
    last = "stopped by SIGTERM; the same command goes on from stopped/checkpoint_last.pt"
    assert last in capsys.readouterr().err
    assert json.loads(Path("run/run.json").read_text())["status"] == "interrupted"
    monkeypatch.setattr(Trainer, "train_step", train_step)
    again = fairseq.train("stopped", f"{flags} run")
    assert fairseq.equal(again / "checkpoint_last.pt", whole / "checkpoint_last.pt")
    assert json.loads(Path("run/run.json").read_text())["status"] == "finished"
    steps = [_steps(Path(folder)) for folder in ("run", "run_whole")]
    assert steps[0] == steps[1]


def test_processes_that_were_given_other_things_are_told(
    fairseq: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "gather_objects", lambda own: [own, {**own, "--seed": 5}])
    with pytest.raises(SystemExit) as end:
        fairseq.train("x", "--max-epoch 3")
    assert end.value.code == 2
    assert "error: --seed differs between processes: 1 in that of" in capsys.readouterr().err


def _sending(train_step: Any, number: int, update: int) -> Any:
    def step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.get_num_updates() + 1 == update:
            os.kill(os.getpid(), number)
        return train_step(trainer, *args, **kwargs)

    return step


def _steps(folder: Path) -> list[Any]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["tag"]) for line in map(json.loads, lines)]
