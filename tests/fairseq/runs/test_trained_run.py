"""The run directory that a training by fairseq leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from fairseq import checkpoint_utils, tasks
from fairseq.trainer import Trainer

from sparseml.cli import main
from sparseml.fairseq import TrainedRun, fairseq_files
from sparseml.pytorch.optim import ScheduledModifierManager, StepDriver
from sparseml.run import RunError, read_masks

RECIPE = """
pruning_modifiers:
  - !GlobalMagnitudePruningModifier
      params: ['re:(encoder|decoder)\\.layers\\..*(proj|fc\\d)\\.weight']
      init_sparsity: 0.1
      final_sparsity: 0.5
      start_epoch: 0
      end_epoch: 1
      update_frequency: 0.25
"""
UPDATES = 4
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of fairseq's own ways


@pytest.fixture(params=["pairs", "text"])
def training(
    request: Any, workplace: Path, corpora: dict[str, Path], checkpoints: dict[str, Path]
) -> tuple[Trainer, StepDriver]:
    """A trainer, and what drives a recipe of four updates through it."""
    with fairseq_files():
        file = str(checkpoints[request.param])
        state = checkpoint_utils.load_checkpoint_to_cpu(file, {"log_interval": 2})
    cfg = state["cfg"]
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    task.load_dataset("train")
    trainer = Trainer(cfg, task, model, criterion)
    manager = ScheduledModifierManager.from_yaml(RECIPE)
    manager.resolve_steps(UPDATES)
    manager.initialize(model, 0.0)
    return trainer, StepDriver(model, trainer.optimizer.optimizer, manager, UPDATES)


def _train(trainer: Trainer, driver: StepDriver) -> None:
    batches = trainer.get_train_iterator(1).next_epoch_itr()
    for _, batch in zip(range(UPDATES + 1), batches, strict=False):
        driver.before_step()
        trainer.train_step([batch])
        driver.after_step()


def test_it_is_like_that_of_other_trainings(training: tuple[Trainer, StepDriver]) -> None:
    trainer, driver = training
    run = TrainedRun(trainer, driver.manager, Path("runs/first"), UPDATES)
    _train(trainer, driver)
    run.validated(3.5)
    run.finish()
    driver.manager.finalize(trainer.get_model())
    folder = Path("runs/first")
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert "GlobalMagnitudePruningModifier" in (folder / "recipe.yaml").read_text()
    assert json.loads((folder / "config.json").read_text())["common"]["seed"] == 1
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [entry for entry in logged if entry["tag"] == "train"]
    assert [entry["step"] for entry in steps] == [1, 3]
    assert all({"loss", "lr"} <= entry["values"].keys() for entry in steps)
    assert [entry["values"] for entry in logged if entry["tag"] == "eval"] == [{"loss": 3.5}]

    masks = read_masks(folder / "masks.safetensors")
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert zeros == sum(mask.numel() for mask in masks.values()) // 2
    state = trainer.get_model().state_dict()
    written = torch.load(folder / "model/checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(state[key], value) for key, value in written.items())
    sparse = json.loads((folder / "result.json").read_text())["variants"]["sparse"]
    assert sparse["metrics"]["loss"] > 0 and sparse["flops"]["dense"] > 0
    done = CliRunner().invoke(main, ["report", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    assert "nll_loss" in done.stdout


def test_a_run_that_goes_on_keeps_what_was_logged(training: tuple[Trainer, StepDriver]) -> None:
    trainer, driver = training
    TrainedRun(trainer, driver.manager, Path("runs/first"), UPDATES)
    _train(trainer, driver)
    Path(trainer.cfg.checkpoint.save_dir).mkdir(exist_ok=True)
    Path(trainer.cfg.checkpoint.save_dir, "checkpoint_last.pt").touch()
    with pytest.raises(RunError, match="--sparseml-output runs/first holds a run"):
        TrainedRun(trainer, driver.manager, Path("runs/first"), UPDATES)
    again = TrainedRun(trainer, driver.manager, Path("runs/first"), UPDATES, goes_on=True)
    again.validated(1.0)
    lines = Path("runs/first/metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    steps = [one["step"] for one in logged if one["tag"] in ("train", "eval")]
    assert steps[:2] == [1, 3] and steps[-1] == UPDATES
