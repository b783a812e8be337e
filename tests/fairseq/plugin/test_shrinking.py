"""A Transformer of fairseq that gets smaller while it trains: SRP."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseml.pytorch.sparsification.distillation.padding import known_tokens

ONE = """
modifiers:
  - !SRPPruningModifier {compression_rate: 0.4, start_epoch: 1.0, end_epoch: 2.0}
"""
TAUGHT = ONE.replace("rate: 0.4", "rate: 0.4, kd_weight: 0.7")
TWO = """
modifiers:
  - !SRPPruningModifier {compression_rate: 0.4, stage: 1, start_epoch: 0.0, end_epoch: 1.0}
  - !SRPPruningModifier {compression_rate: 0.4, stage: 2, start_epoch: 1.0, end_epoch: 2.0}
"""


def _sizes(weights: dict[str, Any]) -> dict[str, int]:
    widths = {
        "encoder": weights["encoder.embed_tokens.weight"].shape[1],
        "decoder": weights["decoder.embed_tokens.weight"].shape[1],
        "qk": weights["encoder.layers.0.self_attn.k_proj.weight"].shape[0],
        "vo": weights["decoder.layers.0.encoder_attn.v_proj.weight"].shape[0],
    }
    neurons = [len(weights[f"{side}coder.layers.0.fc1.weight"]) for side in ("en", "de")]
    return {**widths, "fc": sum(neurons)}


@pytest.mark.parametrize("recipe", [ONE, TWO], ids=["one stage", "two stages"])
def test_a_model_gets_smaller(fairseq: Any, recipe: str) -> None:
    fairseq.write("srp.yaml", recipe)
    folder = fairseq.train("out", "--max-epoch 3", "srp.yaml")
    sizes = [_sizes(fairseq.read(folder / f"checkpoint{n}.pt")["model"]) for n in (1, 2, 3)]
    whole = {"encoder": 16, "decoder": 16, "qk": 16, "vo": 16, "fc": 48}
    least = {"encoder": 9, "decoder": 9, "qk": 8, "vo": 8, "fc": 29}
    stream = {"encoder": 9, "decoder": 9}
    assert sizes == [whole | (stream if recipe == TWO else {}), least, least]
    # only what is small counts
    best = fairseq.read(folder / "checkpoint_best.pt")["model"]
    assert _sizes(best) == least


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each recipe a folder for a run that is not interrupted, which several tests go by."""
    return {recipe: tmp_path_factory.mktemp("runs") / "whole" for recipe in (ONE, TWO, TAUGHT)}


@pytest.mark.parametrize("where", ["_1_3", "1", "_2_8", "2", "_3_15"])
@pytest.mark.parametrize("recipe", [ONE, TWO, TAUGHT], ids=["one stage", "two stages", "taught"])
def test_a_run_that_goes_on_comes_to_the_same_bits(
    fairseq: Any, wholes: dict[str, Path], recipe: str, where: str
) -> None:
    """Before, in the middle of, and after removal."""
    fairseq.write("srp.yaml", recipe)
    whole = wholes[recipe]
    if not whole.exists():
        fairseq.train(str(whole), "--max-epoch 4 --save-interval-updates 1", "srp.yaml")
    (fairseq.folder / "part").mkdir()
    shutil.copy(whole / f"checkpoint{where}.pt", fairseq.folder / "part" / "checkpoint_last.pt")
    part = fairseq.train("part", "--max-epoch 4", "srp.yaml")
    assert fairseq.equal(whole / "checkpoint_last.pt", part / "checkpoint_last.pt")
    sizes = _sizes(fairseq.read(part / "checkpoint_last.pt")["model"])
    assert sizes["encoder"] < 16


OBS = """
modifiers:
  - !OBSPruningModifier
      params: ['re:.*fc1.weight']
      init_sparsity: 0.5
      final_sparsity: 0.5
      start_epoch: 1.0
      end_epoch: 2.0
      update_frequency: 1.0
      num_grads: 4
      grad_sampler_kwargs: {batch_size: 8}
"""


def test_sampling_leaves_the_training_as_it_is(fairseq: Any) -> None:
    """Others than SRP may sample gradients, too, and those of the training are not touched."""
    fairseq.write("obs.yaml", OBS)
    plain = fairseq.train("plain", "--max-epoch 3", None)
    folder = fairseq.train("out", "--max-epoch 3", "obs.yaml")
    assert fairseq.equal(plain / "checkpoint1.pt", folder / "checkpoint1.pt")
    zeros = fairseq.zeros(folder / "checkpoint_last.pt")
    assert sum(count for name, count in zeros.items() if name.endswith("fc1.weight")) == 384


def test_a_teacher_has_a_part_in_the_loss(fairseq: Any) -> None:
    """From the start of the modifier; padding has none, and the teacher stays as it was."""
    fairseq.write("taught.yaml", TAUGHT)
    fairseq.write("untaught.yaml", ONE)
    dense = fairseq.train("dense", "--max-epoch 1", None)
    weights = fairseq.read(dense / "checkpoint_last.pt")["model"]
    begin = "--max-epoch 3 --finetune-from-model dense/checkpoint_last.pt"
    taught = fairseq.train("taught", begin, "taught.yaml")
    plain = fairseq.train("plain", begin, "untaught.yaml")
    kept = fairseq.read(taught / "checkpoint_last.pt")["extra_state"]["sparseml"]["teacher"]
    assert all(torch.equal(value, kept[name]) for name, value in weights.items())
    assert not fairseq.equal(plain / "checkpoint2.pt", taught / "checkpoint2.pt")
    # a run that begins with its checkpoint has the same teacher
    fairseq.train("again", begin.replace("dense/", "taught/"), "taught.yaml")
    again = fairseq.read(fairseq.folder / "again/checkpoint_last.pt")
    assert _sizes(again["model"])["encoder"] < 16
    kept = again["extra_state"]["sparseml"]["teacher"]
    assert all(torch.equal(value, kept[name]) for name, value in weights.items())


def test_padding_has_no_part_in_what_a_teacher_says() -> None:
    class Told(torch.nn.Module):
        decoder = None

    given = {"src_tokens": torch.ones(2, 3)}
    found = known_tokens(Told(), given, torch.tensor([[4, 2, -100], [5, 6, 2]]))
    assert found is not None and found.tolist() == [[True, True, False], [True] * 3]


def test_a_run_directory_tells_of_the_smaller_model(fairseq: Any) -> None:
    fairseq.write("srp.yaml", ONE)
    fairseq.train("out", "--max-epoch 2 --sparseml-output told", "srp.yaml")
    small = fairseq.read(next((fairseq.folder / "told").rglob("checkpoint.pt")))["model"]
    assert _sizes(small)["encoder"] == 9
    assert (fairseq.folder / "told" / "report.html").is_file()
