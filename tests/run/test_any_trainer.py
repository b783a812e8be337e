"""Both runs need no more of a trainer than the protocols say."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import sparseml
from sparseml.run import Metric, prune, read_masks, train


def _rows(file: str) -> list[dict[str, str]]:
    with Path(file).open() as lines:
        return list(csv.DictReader(lines))


def test_one_shot(flags: list[str], glue: Any, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--sparsities", "0.5", "0.75", "--latency-rounds", "0"]
    assert prune([*flags, *more], glue) == 0
    rows = _rows("out/run/results.csv")
    assert list(rows[0]) == ["sparsity", "val/near", "val/error", "zeros", "file"]
    assert [float(row["zeros"]) for row in rows] == [0.0, 0.5, 0.75]
    shown = capsys.readouterr().out
    assert "sparsity |   near |  error |  zeros" in shown and "sparsity 0.7500  near " in shown
    masks = read_masks("out/run/sparsity=0.75/masks.safetensors")
    assert {name: float((~mask).float().mean()) for name, mask in masks.items()} == {
        "0.weight": 0.75,
        "2.weight": 0.75,
    }
    assert prune([*flags, *more], glue) == 2
    assert "out/run holds results: give --overwrite" in capsys.readouterr().err


def test_training(flags: list[str], glue: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(flags, glue) == 0
    rows = _rows("out/run/summary.csv")
    assert list(rows[0])[:6] == ["epoch", "train/loss", "eval/near", "eval/error", "lr", "sparsity"]
    assert [float(row["sparsity"]) for row in rows] == [0.25, pytest.approx(0.6875), 0.75]
    assert "epoch 3/3  train loss" in capsys.readouterr().out
    names = {path.name for path in Path("out/run/checkpoints").iterdir()}
    assert {"tiny_last.pth", "tiny_sparsity=0.25_best.pth", "tiny_sparsity=0.75_best.pth"} <= names
    variants = json.loads(Path("out/run/result.json").read_text())["variants"]
    assert list(variants["sparse"]["metrics"]) == ["near", "error"]


def test_what_is_zero_as_a_whole_is_removed_and_measured(flags: list[str], glue: Any) -> None:
    Path("recipe.yaml").write_text(
        """
        modifiers:
          - !StructuredPruningModifier
              params: [2.weight]
              mask_type: channel
              init_sparsity: 0.0
              final_sparsity: 0.5
              start_epoch: 0
              end_epoch: 1
              update_frequency: 1
          - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
        """
    )
    assert train(flags, glue) == 0
    variants = json.loads(Path("out/run/result.json").read_text())["variants"]
    assert variants["shrunk"]["parameters"] == 38
    assert variants["shrunk"]["description"] == (
        "kept 4 of 8 neurons, 38 of 74 parameters; it computes the same"
    )
    assert variants["shrunk"]["storage"]["dense"] == 4 * 38
    assert all(one["latency"] for one in variants.values())
    whole = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    loaded = sparseml.load_shrunk("out/run/shrunk", builder=lambda: whole)
    masked = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    masked.load_state_dict(load_file("out/run/model.safetensors"))
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(loaded(inputs), masked(inputs))


def test_a_resumed_training_equals_one_that_was_not(flags: list[str], glue: Any) -> None:
    assert train([*flags, "--checkpoint-freq", "1"], glue) == 0
    whole = load_file("out/run/model.safetensors")
    folder = Path("out/run/checkpoints")
    (folder / "tiny_epoch=1.pth").replace(folder / "tiny_last.pth")
    assert train([*flags, "--resume", "out/run"], glue) == 0
    resumed = load_file("out/run/model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(("telling", "best"), [("near", max), ("error", min)])
def test_the_best_checkpoint_has_the_highest_share_or_the_lowest_error(
    flags: list[str], glue: Any, monkeypatch: pytest.MonkeyPatch, telling: str, best: Any
) -> None:
    recipe = Path("recipe.yaml").read_text().replace("init_sparsity: 0.25", "init_sparsity: 0.75")
    Path("recipe.yaml").write_text(recipe)  # so that all epochs are of one sparsity
    opened = glue.open_session
    metric = Metric(telling, telling, percent=False)
    monkeypatch.setattr(
        glue, "open_session", lambda *given: replace(opened(*given), metrics=[metric])
    )
    assert train(flags, glue) == 0
    reached = [float(row[f"eval/{telling}"]) for row in _rows("out/run/summary.csv")]
    assert len(set(reached)) > 1
    kept = torch.load("out/run/checkpoints/tiny_sparsity=0.75_best.pth", weights_only=False)
    assert kept["extra"]["progress"]["best"][telling] == best(reached)


def test_columns_are_as_wide_as_their_heads() -> None:
    for metric in (Metric("top1", "val/acc"), Metric("perplexity", "val/ppl", percent=False)):
        assert len(metric.cell(0.5)) == len(metric.head)
