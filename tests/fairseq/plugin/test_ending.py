"""Trainings by fairseq that a signal ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from fairseq.trainer import Trainer


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


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--sparseml-recipe-args s=0.5", "the recipe differs between processes: 'final_sparsity: "),
        ("--seed 5", "--seed differs between processes: 1 in that of rank 0, 5 in that of rank 1"),
        ("--max-tokens 60", "the number of updates in an epoch differs between processes: "),
    ],
)
def test_processes_that_were_given_other_things_are_told(
    fairseq: Any, in_two: Any, flag: str, told: str
) -> None:
    """Also of unequal numbers of batches, for which a process would wait until it times out."""
    recipe = fairseq.write("gap_to.yaml", "s: 0.75\n" + fairseq.gap.replace(": 0.75", ": eval(s)"))

    def train(rank: int) -> None:
        place = f"tcp://127.0.0.1:{os.environ['MASTER_PORT']}"
        flags = f"--distributed-world-size 2 --distributed-rank {rank} --distributed-no-spawn "
        flags += f"--distributed-init-method {place} --distributed-backend gloo "
        flags += f"--ddp-backend legacy_ddp --max-epoch 3 {flag if rank else ''}"
        fairseq.train("x", flags, recipe)

    for ended in in_two(train):
        lines = [line for line in ended.error.splitlines() if "error: " in line]
        assert ended.status == 2 and len(lines) == 1 and told in lines[0], ended.error


def test_a_run_that_ends_before_its_first_checkpoint_begins_anew(
    fairseq: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """By the same command; a run that has ended, or another one's, is not replaced."""
    flags, train_step = "--max-epoch 3 --sparseml-output run", Trainer.train_step

    def fails(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Trainer, "train_step", fails)
    with pytest.raises(SystemExit):
        fairseq.train("first", flags)
    monkeypatch.setattr(Trainer, "train_step", train_step)
    with pytest.raises(SystemExit):  # whose checkpoints lie elsewhere
        fairseq.train("second", flags)
    fairseq.train("first", flags)
    assert "run holds a run that ended before its first checkpoint: it begins anew" in caplog.text
    assert json.loads(Path("run/run.json").read_text())["status"] == "finished"
    shutil.rmtree("first")
    with pytest.raises(SystemExit):
        fairseq.train("first", flags)


def _sending(train_step: Any, number: int, update: int) -> Any:
    def step(trainer: Any, *args: Any, **kwargs: Any) -> Any:
        if trainer.get_num_updates() + 1 == update:
            os.kill(os.getpid(), number)
        return train_step(trainer, *args, **kwargs)

    return step


def _steps(folder: Path) -> list[Any]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["tag"]) for line in map(json.loads, lines)]
