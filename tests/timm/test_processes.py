"""Runs that are killed, and runs of two processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparseml.run import read_masks

TRAIN = "sparse_training.py"
ONE_SHOT = "one_shot_pruning.py"
BY_GRADIENTS = """
pruning_modifiers:
  - !MODIFIERPruningModifier
      params: ['re:body.*weight']
      init_sparsity: 0.5
      final_sparsity: 0.5
      start_epoch: 0
      end_epoch: 1
      update_frequency: 1
      num_grads: 6
"""


@pytest.fixture
def training(flags: list[Any]) -> list[Any]:
    """Flags for four epochs with the gradual recipe."""
    more = ["--sparseml-recipe", "gradual.yaml", "-b", 8, "--lr", 0.1, "--warmup-epochs", 0]
    return [*flags, *more, "--epochs", 4, "--model-ema"]


def _same(one: Path, other: Path) -> None:
    weights, expected = (load_file(folder / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(value, weights[key]) for key, value in expected.items())
    masks, expected = (read_masks(folder / "masks.safetensors") for folder in (one, other))
    assert masks.keys() == expected.keys()
    assert all(torch.equal(value, masks[key]) for key, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["epoch 1/4 4/6", "epoch 2/4 evaluating", "epoch 3/4 2/6"])
def test_a_killed_run_that_is_resumed_equals_one_that_was_not(
    training: list[Any],
    start: Any,
    call: Any,
    workplace: Path,
    moment: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # put back in the end, as the code is imported here, too
    monkeypatch.setattr("sparseml.run.progress.QUIET_SECONDS", 10.0)
    with (workplace / "own_code.py").open("a") as code:  # to be told of every step
        code.write("from sparseml.run import progress\n\nprogress.QUIET_SECONDS = 0.0\n")
    process = start(TRAIN, *training)
    for line in process.stdout:
        if line.startswith(moment):
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.read()
    assert process.wait() == -signal.SIGKILL
    out = workplace / "out/run"
    resumable = (out / "checkpoints/small_last.pth").exists()
    assert resumable or moment.startswith("epoch 1")
    call(TRAIN, *training, *(["--resume", out] if resumable else ["--overwrite"]))
    call(TRAIN, *training, "--experiment", "whole")
    _same(out, workplace / "out/whole")
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_two_processes_train_one_model(training: list[Any], run: Any, workplace: Path) -> None:
    training += ["--checkpoint-freq", 2]
    output = run(TRAIN, *training, processes=2)
    assert output.count("epoch 4/4  train loss") == 1, "one process talks"
    out = workplace / "out/run"
    masks, weights = read_masks(out / "masks.safetensors"), load_file(out / "model.safetensors")
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())
    assert (out / "checkpoints/small_epoch=1.pth").exists()
    run(TRAIN, *training, "--experiment", "resumed", "--resume",
        out / "checkpoints/small_epoch=1.pth", processes=2)  # fmt: skip
    _same(workplace / "out/resumed", out)


@pytest.mark.slow
@pytest.mark.parametrize("modifier", ["GlobalMagnitude", "CA"])
def test_two_processes_prune_one_model_in_one_shot(
    flags: list[Any], run: Any, call: Any, workplace: Path, modifier: str
) -> None:
    text = BY_GRADIENTS.replace("MODIFIER", modifier)
    if modifier == "CA":
        pytest.importorskip("sparseml.pytorch.sparsification.pruning.sampled.modifier_pruning_cap")
        text += "      fisher_block_size: 8\n      damp: 1.0e-4\n"
    else:
        text = text.replace("      num_grads: 6\n", "")
    (workplace / "recipe.yaml").write_text(text)
    given = [*flags, "--recipe", "recipe.yaml", "--sparsities", 0.5, "-gb", 8, "--gs-distributed"]
    # each process would measure batch norms on images of its own
    given += ["--latency-rounds", 0, "--bn-retune", 0]
    output = run(ONE_SHOT, *given, processes=2)
    assert output.count("sparsity 0.5000  top1") == 1
    folder = workplace / "out/run/sparsity=0.5"
    masks = read_masks(folder / "masks.safetensors")
    zeros = sum(int((~mask).sum()) for mask in masks.values())
    assert zeros == round(0.5 * sum(mask.numel() for mask in masks.values()))
    if modifier == "GlobalMagnitude":
        call(ONE_SHOT, *given, "--experiment", "alone")
        _same(folder, workplace / "out/alone/sparsity=0.5")
        both, alone = (
            json.loads((workplace / f"out/{name}/results.json").read_text())["results"]
            for name in ("run", "alone")
        )
        assert [row["val/acc"] for row in both] == [row["val/acc"] for row in alone]
