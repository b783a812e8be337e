"""The study of composed translators, and the scripts with the names of the reference."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
pytest.importorskip("sentencepiece")
pytest.importorskip("sacrebleu")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("COMPOSABILITY_WORK", str(tmp_path))
    for folder in ("research", "research/composability"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    (tmp_path / "subwords.json").write_text(json.dumps({"▁a": 4, "b": 10}))
    return tmp_path


@pytest.fixture
def translator(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    multi30k = importlib.import_module("multi30k")
    monkeypatch.setattr(multi30k, "prepared", lambda: (None, {"▁a": 4, "b": 10}, {}))
    return multi30k.model()


@pytest.fixture
def study(scripts: Path) -> ModuleType:
    return importlib.import_module("composing_study")


def rows(curves: dict[str, list[float]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"method": "origin", "seed": 0, "sparsity": "", "bleu": 30.0},
        {"method": "blocks", "seed": 0, "sparsity": "", "seconds": 60.0, "stage": 5.0},
    ]
    for name in ("half", "fifth", "half_fifth", "fifth_half"):
        for method, curve in curves.items():
            row = {"method": method, "seed": 0, "sparsity": name, "bleu": curve[-1] + 1}
            found.append(row | {"curve": curve, "seconds": 40.0, "kept": 1000})
    return found


def test_the_table_tells_both_starts_and_both_ends(study: ModuleType) -> None:
    curves = {"direct": [1.0, 8.0, 9.0, 9.5, 10.0], "composed": [5.0, 10.0, 12.0, 13.0, 14.0]}
    text = study.table(rows(curves))
    assert "BLEU of the origin 30.00; mean of 1 seed" in text
    assert "| 0.5, 0.2 | 1,000 | 1.00 | 5.00 | 11.00 | 15.00 |" in text
    # after one of four epochs as good: 60 + 4 x 1 x 10 seconds against 160
    assert "after 1.0 of 4 epochs, so that with blocks 100 s give the same quality" in text
    assert "1.60 times as fast" in text and "pay from 2.0 configurations" in text


def test_a_model_that_never_gets_there(study: ModuleType) -> None:
    text = study.table(rows({"direct": [1.0, 9.0], "composed": [5.0, 8.0]}))
    assert "No composed model was as good" in text
    assert study.epochs_to([1.0, 3.0, 5.0], 4.0) == 1.5
    assert study.epochs_to([4.0], 4.0) == 0.0 and study.epochs_to([1.0, 2.0], 4.0) is None


def test_configurations_leave_out_what_is_tied(study: ModuleType, translator: Any) -> None:
    found = study.configurations(translator)
    assert [len(one.rates) for one in found] == [14] * 4
    mixed = found[2].rates
    assert mixed["transformer.encoder.layers.0.linear1"] == 0.5
    assert mixed["transformer.decoder.layers.1.multihead_attn"] == 0.2
    assert importlib.import_module("config_generator").prunable(translator) == list(mixed)


def test_checkpoints_of_fairseq_are_read(translator: Any, scripts: Path) -> None:
    own = translator.state_dict()
    given = {"encoder.embed_tokens.weight": own["source.weight"] + 1}
    for name, value in own.items():
        if not name.startswith("transformer."):
            continue
        old = name.removeprefix("transformer.").replace("multihead_attn", "encoder_attn")
        old = old.replace("linear1", "fc1").replace("linear2", "fc2")
        last = "norm3" if "decoder" in old else "norm2"
        old = old.replace(f".{last}.", ".final_layer_norm.")
        old = old.replace(".norm1.", ".self_attn_layer_norm.")
        old = old.replace(".norm2.", ".encoder_attn_layer_norm.")
        for number, part in enumerate("qkv"):
            if ".in_proj_" in old:
                given[old.replace(".in_proj_", f".{part}_proj.")] = value.chunk(3)[number] + 1
        if ".in_proj_" not in old:
            given[old] = value + 1
    torch.save({"model": given, "args": Namespace(arch="transformer")}, scripts / "c.pt")
    read = importlib.import_module("train_origin").from_fairseq(scripts / "c.pt")
    assert read.keys() == own.keys()
    assert all(torch.equal(value, own[name] + 1) for name, value in read.items())


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        ("config_generator", ["--model_file", "--output", "--conf_number"]),
        ("config_prune_generator", ["--conf_file"]),
        ("finetune", ["--modules_file", "--epochs", "--batch_size"]),
        ("retrain", ["--modules_file", "--origin", "--conf_file", "--index", "--epochs"]),
        ("evaluate", ["model"]),
        ("train_origin", ["--epochs"]),
    ],
)
def test_scripts_have_the_flags_of_the_reference(
    script: str, flags: list[str], scripts: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found = importlib.import_module(script)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        found.main()
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(flag in text for flag in flags)
