"""Both runs need no more of a trainer than the protocols say."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sparseml.run import prune, read_masks, train


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


def test_a_resumed_training_equals_one_that_was_not(flags: list[str], glue: Any) -> None:
    assert train([*flags, "--checkpoint-freq", "1"], glue) == 0
    whole = load_file("out/run/model.safetensors")
    folder = Path("out/run/checkpoints")
    (folder / "tiny_epoch=1.pth").replace(folder / "tiny_last.pth")
    assert train([*flags, "--resume", "out/run"], glue) == 0
    resumed = load_file("out/run/model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
