"""Resuming with other settings than those of the run: what goes on, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

SCRIPT = "sparse_training.py"
OTHER_MODELS = """

class Headless(Small):
    def __init__(self, num_classes=3):
        super().__init__(num_classes)
        self.head = nn.Linear(8, num_classes, bias=False)


class Wide(Small):
    def __init__(self, num_classes=3):
        super().__init__(num_classes)
        self.body[4] = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Linear(16, num_classes)


class Same(Small):
    pass
"""


@pytest.fixture
def stopped(
    flags: list[Any], call: Any, workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """Flags of a run that was stopped after two epochs of four; it is trained once, and copied."""
    with (workplace / "own_code.py").open("a") as file:
        file.write(OTHER_MODELS)
    more = ["--sparseml-recipe", "gradual.yaml", "-b", 8, "--lr", 0.1, "--warmup-epochs", 0]
    given = [*flags, *more, "--epochs", 4]
    kept = tmp_path_factory.getbasetemp() / "stopped"
    if not kept.exists():
        call(SCRIPT, *given, "--checkpoint-freq", 2)
        folder = workplace / "out/run/checkpoints"
        (folder / "small_epoch=1.pth").replace(folder / "small_last.pth")
        shutil.copytree("out", kept)
    shutil.copytree(kept, "out", dirs_exist_ok=True)
    return [*given, "--resume", "out/run"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--recipe-args", "sparsity=0.7"], "the state does not belong to this recipe"),
        (["--model", "own_code:Headless"], "does not fit Headless: the weights do not fit"),
        (["--model", "own_code:Wide"], "comes from --model own_code:small, whose layers have"),
        (["--opt", "adamw"], "comes from --opt sgd, not adamw; --no-resume-opt goes on without"),
        (["--opt", "lion"], "comes from --opt sgd, not lion"),
        (["--sched", "step"], "comes from --sched cosine, not step"),
        (["--model-ema"], "holds no state of: ema"),
        (["--epochs", 1, "--recipe-args", "epochs=1"], "does not belong to this recipe"),
    ],
)
def test_what_does_not_fit_is_refused(
    stopped: list[Any], call: Any, more: list[Any], expected: str
) -> None:
    done = call(SCRIPT, *stopped, *more, fails=True)
    lines = [line for line in done.error.splitlines() if line.startswith("error: --resume out/run")]
    assert done.status == 2 and len(lines) == 1 and expected in lines[0], done.error
    assert "Traceback" not in done.error


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--workers", 2, "-b", 16, "--seed", 3], ["workers 0 (now 2)", "batch_size 8 (now 16)"]),
        (["--model", "own_code:Same"], ["model 'own_code:small' (now 'own_code:Same')"]),
        (["--opt", "adamw", "--no-resume-opt"], ["opt 'sgd' (now 'adamw')"]),
        (["--sched", "step", "--no-resume-opt"], ["sched 'cosine' (now 'step')"]),
        (["--val-batch-size", 16, "--threads", 1, "--log-interval", 2], []),
    ],
)
def test_what_changes_the_numbers_is_told(
    stopped: list[Any], call: Any, caplog: Any, more: list[Any], expected: list[str]
) -> None:
    caplog.clear()
    done = call(SCRIPT, *stopped, *more)
    assert "after 2 epochs" in done.out and "epoch 4/4  train loss" in done.out
    warned = [r.getMessage() for r in caplog.records if r.name == "sparseml.run.checkpoints"]
    assert len(warned) == bool(expected)
    assert all(text in warned[0] for text in expected)


def test_without_the_optimizer_the_rate_is_still_that_of_the_epoch(
    stopped: list[Any], call: Any, workplace: Path
) -> None:
    last = workplace / "out/run/checkpoints/small_last.pth"
    kept = last.read_bytes()
    for more in ([], ["--no-resume-opt"], ["--no-resume-opt", "--sched-on-updates"]):
        last.write_bytes(kept)
        done = call(SCRIPT, *stopped, *more, "--experiment", "run")
        lines = [line for line in done.out.splitlines() if "train loss" in line]
        rates = [float(line.split()[-1]) for line in lines]
        if "--sched-on-updates" in more:  # it falls also within an epoch
            assert 0.01 < rates[0] < 0.05 and rates[1] < 0.0146
        else:
            assert rates == [0.05, 0.0146]
