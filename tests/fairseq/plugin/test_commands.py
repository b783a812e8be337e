"""fairseq's own commands as its documentation shows them, and its own processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sparseml

BIN = Path(sys.executable).parent
PATH = os.pathsep.join([str(Path(sparseml.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
TWO = """
import torch
torch.cuda.device_count = lambda: 2  # fairseq starts a process for each
from fairseq.trainer import Trainer
from fairseq_cli.train import cli_main
from sparseml.fairseq.recipe_run import RecipeRun

def keeping(name, owner):
    original = getattr(owner, name)
    def call(self, *args):
        trainer = getattr(self, "trainer", self)
        when = args[0] if args else "end"
        torch.save(trainer.get_model().state_dict(), f"{when}_{trainer.data_parallel_rank}.pt")
        return original(self, *args)
    setattr(owner, name, call)

keeping("begin_epoch", Trainer)
keeping("finish", RecipeRun)
if __name__ == "__main__":
    cli_main()
"""


def _run(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_as_documented(fairseq: Any, corpus: Path, warmly: Any) -> None:
    """Preprocess, train with a report, and translate."""
    folder: Path = fairseq.folder
    prefs = f"--trainpref {corpus}/train --validpref {corpus}/valid --testpref {corpus}/test"
    preprocess = f"{BIN}/fairseq-preprocess -s de -t en {prefs} --destdir bin --joined-dictionary"
    with warmly():
        _run(preprocess.split(), folder)
    user_dir = _run([sys.executable, "-m", "sparseml.fairseq"], folder).strip()
    flags = f"{fairseq.model} {fairseq.learning} --cpu --max-tokens 150 --max-epoch 3"
    recipe = f"--user-dir {user_dir} --sparseml-recipe gap.yaml --sparseml-output run"
    _run(f"{BIN}/fairseq-train bin {recipe} {flags}".split(), folder)
    assert fairseq.sparse(folder / "checkpoints" / "checkpoint_best.pt")
    assert (folder / "run" / "report.html").exists()
    generate = f"{BIN}/fairseq-generate bin --path checkpoints/checkpoint_best.pt --cpu --beam 2"
    generate += " --required-batch-size-multiple 1"
    said = _run(f"{generate} --user-dir {user_dir}".split(), folder)
    assert said.count("\nH-") == 4


@pytest.mark.usefixtures("warm")
def test_two_processes_are_one(fairseq: Any) -> None:
    """After every boundary the ranks have the same weights, and those of one process."""
    folder: Path = fairseq.folder
    (folder / "two.py").write_text(TWO)
    model = fairseq.model.replace("--dropout 0.1", "--dropout 0")
    flags = f"{model} {fairseq.learning} --max-epoch 4 --disable-validation"
    two = f"{flags} --distributed-world-size 2 --distributed-backend gloo --ddp-backend legacy_ddp"
    _run([sys.executable, "two.py", *fairseq.words("two", two, "gap.yaml")], folder)
    for when in ("2", "3", "4", "end"):
        first, second = (fairseq.read(folder / f"{when}_{rank}.pt") for rank in (0, 1))
        assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert fairseq.sparse(folder / "two" / "checkpoint_last.pt")
    one = fairseq.train("one", "--max-epoch 4 --disable-validation --update-freq 2", model=model)
    alone = fairseq.read(one / "checkpoint_last.pt")["model"]
    for name, value in fairseq.read(folder / "two" / "checkpoint_last.pt")["model"].items():
        torch.testing.assert_close(value, alone[name], atol=1e-4, rtol=1e-3)
