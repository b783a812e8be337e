"""What is told of schedules before a run is computed."""

from __future__ import annotations

import pytest

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.timm import GLUE
from sparseml.timm.training_setup import learning_rate, schedule_findings

PRUNING = """
modifiers:
  - !MagnitudePruningModifier
      params: __ALL_PRUNABLE__
      init_sparsity: 0.2
      final_sparsity: 0.8
      start_epoch: 0
      end_epoch: {end}
      update_frequency: 1
"""
RATE = """
  - !LearningRateFunctionModifier
      start_epoch: 0
      end_epoch: 3
      lr_func: linear
      init_lr: 0.1
      final_lr: 0.01
"""


PLATEAU = ["--sched", "plateau", "--warmup-epochs", "0"]


def _findings(*flags: str, epochs: int = 20, recipe: str = PRUNING.format(end=20)) -> list[str]:
    settings = GLUE.training_settings(["imgs", "--recipe", "r.yaml", *flags])
    settings.schedule.lr = learning_rate(settings, 1)
    manager = ScheduledModifierManager.from_yaml(recipe)
    return list(schedule_findings(settings, manager, epochs, 10, "r.yaml"))


@pytest.mark.parametrize(
    ("flags", "epochs", "expected"),
    [
        ([], 50, None),
        (["--lr", "0.05"], 3, "--lr 0.05 is never reached in a run of 3 epochs, the highest rate"),
        (["--lr", "0.05", "--warmup-epochs", "2"], 20, None),
        (["--warmup-epochs", "20"], 20, "--warmup-epochs 20 take most of the time in a run of 20"),
        (["--warmup-epochs", "9"], 12, "is never reached in a run of 12 epochs, the highest"),
        (["--warmup-epochs", "20", "--warmup-prefix"], 40, None),
        (["--warmup-epochs", "20", "--sched-on-updates"], 20, "--warmup-epochs 20 take most of"),
        (["--lr", "0.05", "--min-lr", "0.1"], 50, "--min-lr 0.1 is above --lr 0.05"),
        (
            ["--sched", "step"],
            50,
            "--decay-epochs 90: not reached in a run of 50 epochs, so the ra",
        ),
        (["--sched", "step", "--decay-epochs", "2.4", "--decay-rate", "0.97"], 50, None),
        (PLATEAU, 9, "--patience-epochs 10: not reached in a run of 9 epochs"),
        (
            ["--sched", "multistep"],
            200,
            "--decay-milestones 270: not reached in a run of 200 epochs, so it falls less often",
        ),
        (["--sched", "multistep", "--decay-milestones", "9", "12"], 20, None),
        (["--sched", "none"], 5, None),
        (
            ["--opt", "adamw"],
            50,
            "--lr 0.05 is high for --opt adamw, which usually takes 0.001",
        ),
        (["--opt", "adamw", "--lr", "0.002"], 50, None),
    ],
)
def test_rates_that_do_not_come(flags: list[str], epochs: int, expected: str | None) -> None:
    found = _findings(*flags, epochs=epochs, recipe=PRUNING.format(end=epochs))
    assert len(found) == (0 if expected is None else 1), found
    if expected is not None:
        assert expected in found[0] and "\n" not in found[0]


def test_the_rate_of_the_recipe_and_its_end() -> None:
    both = PRUNING.format(end=3) + RATE
    assert _findings("--lr", "0.1", "--epochs", "3", epochs=3, recipe=both) == [
        "--lr: without effect, as r.yaml sets the learning rate"
    ]
    assert _findings(epochs=3, recipe=both) == []
    made = PRUNING.format(end=3) + "  - !EpochRangeModifier {start_epoch: 0, end_epoch: 4}\n"
    assert _findings("--warmup-epochs", "0", epochs=8, recipe=made) == [
        "r.yaml is made for 4 epochs, this run has 8"
    ]
    assert _findings("--warmup-epochs", "0", epochs=4, recipe=made) == []
    assert _findings("--warmup-epochs", "0", epochs=8, recipe=PRUNING.format(end=3)) == []
