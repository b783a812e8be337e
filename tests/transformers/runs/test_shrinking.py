"""``sparseml train`` with a recipe that takes units out of a model of Transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sparseml
from sparseml.run import train

STAGES = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 5}
  - !SRPPruningModifier {compression_rate: 0.4, stage: 1, start_epoch: 0.5, end_epoch: 2.5,
      kd_weight: 0.5, kd_temperature: 4.0, num_scoring_batches: 2}
  - !SRPPruningModifier {compression_rate: 0.4, stage: 2, start_epoch: 2.5, end_epoch: 4,
      pruning_iter: 2}
"""
ONE = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 1}
  - !SRPPruningModifier {compression_rate: 0.4, stage: 1, start_epoch: 0, end_epoch: 1}
"""


@pytest.fixture
def flags(workplace: Path, folders: dict[str, Path], sentiment: Path) -> list[Any]:
    """Flags to train the classifier; the recipe and its model come last."""
    for number in (0, 1, 2):
        text = ONE.replace("stage: 1", f"stage: {number}")
        (workplace / f"stage{number}.yaml").write_text(text)
    (workplace / "stages.yaml").write_text(STAGES)
    own = ["--data", sentiment, "--task", "sst2", "-b", 8, "--lr", 0.001, "--warmup-epochs", 0]
    return [*own, "--model", f"hf:{folders['bert']}"]


def _result(experiment: str) -> dict[str, Any]:
    return json.loads(Path(f"out/{experiment}/result.json").read_text())


def test_resumed_at_every_epoch_it_ends_with_the_same_small_model(
    call: Any, flags: list[Any]
) -> None:
    flags = [*flags, "--recipe", "stages.yaml"]
    call(*flags, "--checkpoint-freq", 1, run=train)
    whole = load_file("out/run/model.safetensors")
    folder = Path("out/run/checkpoints")
    best = torch.load(folder / "bert_sparsity=0.00_best.pth", weights_only=True)
    sizes = [
        sum(value.numel() for value in torch.load(file, weights_only=True)["state_dict"].values())
        for file in sorted(folder.glob("bert_epoch=*.pth"))
    ]
    assert sizes[0] == sizes[1] > sizes[2] > sizes[3] == sizes[4]
    # however good the whole model was
    assert sum(value.numel() for value in best["state_dict"].values()) == sizes[4]
    for epoch in range(4):
        shutil.copy(folder / f"bert_epoch={epoch}.pth", folder / "bert_last.pth")
        done = call(*flags, "--resume", "out/run", run=train)
        assert f"after {epoch + 1} epochs" in done.out
        resumed = load_file("out/run/model.safetensors")
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    found = _result("run")
    small = found["variants"]["shrunk"]
    assert small["parameters"] < 0.45 * found["variants"]["dense"]["parameters"]
    assert {place["kind"] for place in small["places"]} == {"stream", "qk", "vo", "fc"}
    assert "neurons: " in found["notes"][0]
    for name in ("shrunk", "model"):
        loaded = sparseml.load_shrunk(f"out/run/{name}")
        own = loaded.state_dict()
        assert all(torch.equal(own[key], value) for key, value in whole.items())


def test_stages_in_runs_of_their_own(call: Any, flags: list[Any]) -> None:
    call(*flags, "--recipe", "stage1.yaml", "--experiment", "first", run=train)
    again = [*flags[:-1], "hf:out/first/model"]
    call(*again, "--recipe", "stage2.yaml", "--experiment", "second", run=train)
    call(*flags, "--recipe", "stage0.yaml", "--experiment", "once", run=train)
    twice, once = (_result(name)["variants"]["shrunk"] for name in ("second", "once"))
    assert twice["parameters"] == once["parameters"]
    assert twice["description"].split(", ")[:4] == once["description"].split(", ")[:4]
    assert twice["latency"] and twice["flops"]["dense"] == once["flops"]["dense"]


def test_what_does_not_fit_is_one_line(
    call: Any, flags: list[Any], folders: dict[str, Path], story: Path, monkeypatch: Any
) -> None:
    call(*flags, "--recipe", "stage1.yaml", run=train)
    more = ["--resume", "out/run"]
    done = call(*flags, "--recipe", "stage2.yaml", *more, fails=True, run=train)
    assert "the state does not belong to this recipe" in done.error
    other = [*flags[:-1], f"hf:{folders['gpt2']}"]
    done = call(*other, "--recipe", "stage1.yaml", *more, fails=True, run=train)
    assert "is of another model: it had 16 units in 'stream bert.emb" in done.error
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = call(*flags, "--recipe", "stage1.yaml", "--overwrite", fails=True, run=train)
    assert "stage1.yaml: SRPPruningModifier takes parts out of the model" in done.error
    assert "several processes cannot do together" in done.error
