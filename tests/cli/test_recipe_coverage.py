"""What ``sparseml recipe check --model`` says of what stays dense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

MODEL = """\
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3)
        self.lstm = nn.LSTM(16, 8)
        self.gru = nn.GRU(16, 8)
        self.scale = nn.Parameter(torch.ones(16))
        self.head = nn.Linear(16, 4)
        self.tied = nn.Linear(16, 4, bias=False)
        self.tied.weight = self.head.weight
"""
RECIPE = """\
modifiers:
  - !GMPruningModifier
    params: [PARAMS]
    init_sparsity: 0.5
    final_sparsity: 0.75
    start_epoch: 0.0
    end_epoch: 2.0
    update_frequency: 1.0
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 4.0}
"""


@pytest.fixture
def check(folder: Path, invoke: Any, invoke_json: Any) -> Any:
    (folder / "encoders.py").write_text(MODEL)

    def run(params: str, *options: str) -> tuple[dict[str, Any], str]:
        (folder / "r.yaml").write_text(RECIPE.replace("PARAMS", params))
        call = ("check", "r.yaml", "--model", "encoders:Net", *options)
        return invoke_json(*call)["coverage"], invoke(*call).stdout

    return run


def test_what_no_modifier_and_no_token_reaches(check: Any) -> None:
    found, shown = check("'re:.*linear\\d.weight'")
    weights = {one["name"]: one["weights"] for one in found["not_selected"]}
    outputs = {f"encoder.layers.{n}.self_attn.out_proj.weight": 256 for n in range(3)}
    assert weights == {**outputs, "head.weight": 64}
    by_name = {one["name"]: (one["layer"], one["weights"]) for one in found["by_name_only"]}
    assert by_name == {
        **{
            f"encoder.layers.{n}.self_attn.in_proj_weight": ("MultiheadAttention", 768)
            for n in range(3)
        },
        "lstm.weight_ih_l0": ("LSTM", 512),
        "lstm.weight_hh_l0": ("LSTM", 256),
        "gru.weight_ih_l0": ("GRU", 384),
        "gru.weight_hh_l0": ("GRU", 192),
    }
    assert found["rest"]["embeddings"]["weights"] == 800
    assert found["rest"]["norms"]["tensors"] == 12
    assert found["rest"]["other vectors"] == {"tensors": 1, "weights": 16, "first": "scale"}
    layers, everything = 3 * (2 * 512 + 256) + 64, found["weights"]
    assert found["layer_weights"] == layers
    assert found["layer_sparsity"] == pytest.approx(0.75 * 3072 / layers)
    assert found["sparsity"] == pytest.approx(0.75 * 3072 / everything)
    assert "layers.*.self_attn." in shown and "LSTM (by name only)" in shown
    assert f"In all {found['sparsity']:.2%} of {everything:,} weights become zero" in shown
    assert "800 weights of embeddings" in shown


def test_all_names_each(check: Any) -> None:
    _, shown = check("head.weight", "--all")
    assert "*" not in shown.split("What stays dense")[1].partition("\n\n ")[0]
    assert all(f"layers.{n}." in shown for n in range(3))


def test_what_is_named_is_pruned(check: Any) -> None:
    found, shown = check("'re:.*weight'")
    assert found["not_selected"] == found["by_name_only"] == []
    assert "What stays dense" not in shown
    norms = {"tensors": 6, "weights": 96, "first": "encoder.layers.0.norm1.weight"}
    embeddings = {"tensors": 1, "weights": 800, "first": "embed.weight"}
    assert found["pruned_rest"] == {"embeddings": embeddings, "norms": norms}
    assert "Pruned as well: 800 weights of embeddings, as in embed.weight." in shown
    assert "96 weights of norms, as in encoder.layers.0.norm1.weight; __ALL_PRUNABLE__" in shown


def test_what_only_the_weights_can_tell(folder: Path, invoke_json: Any, check: Any) -> None:
    check("head.weight")
    (folder / "r.yaml").write_text("modifiers:\n  - !ConstantPruningModifier {params: __ALL__}\n")
    found = invoke_json("check", "r.yaml", "--model", "encoders:Net")["coverage"]
    assert found["unknown_weights"] == found["weights"] and found["sparsity"] == 0.0


def test_a_recipe_that_prunes_nothing_says_nothing_of_it(folder: Path, invoke_json: Any) -> None:
    (folder / "r.yaml").write_text(
        "modifiers:\n  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 1.0}\n"
    )
    assert "coverage" not in invoke_json("check", "r.yaml", "--model", "own_code:Network")
