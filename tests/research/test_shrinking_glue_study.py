"""The study of a shrunk encoder: its batches, its table, and the results of the repository."""

from __future__ import annotations

import importlib
import itertools
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "research"))
    return importlib.import_module("shrinking_glue_study")


def test_batches_are_of_similar_lengths_and_end_only_without_a_seed(study: ModuleType) -> None:
    phrases = study.Phrases([[1] * (1 + at % 7) for at in range(20)], [0] * 20)
    found = list(phrases.by_length(4))
    assert sorted(itertools.chain(*found)) == list(range(20)) and len(found) == 5
    drawn = list(itertools.islice(phrases.by_length(4, 0), 10))
    for part in (drawn[:5], drawn[5:]):
        assert sorted(itertools.chain(*part)) == list(range(20))
    assert drawn != list(itertools.islice(phrases.by_length(4, 1), 10))
    batch = phrases.batch([0, 3])
    assert batch["input_ids"].shape == (2, 4) and batch["attention_mask"].sum().item() == 5


def test_recipes_and_sizes(study: ModuleType) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    from sparseml.pytorch.optim import ScheduledModifierManager

    for parts in study.RECIPES.values():
        recipe = [study._FADES.format(rate=0.2, rest=part) for part in parts]
        text = "modifiers:\n" + "\n".join(f"  - {one}" for one in recipe)
        manager = ScheduledModifierManager.from_yaml(text)
        assert manager.max_epochs * study.EPOCH < study.SETTINGS["shrunk"]["updates"]
    config = BertConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96
    )
    with torch.device("meta"):
        whole = BertForSequenceClassification(config)
        small = study.small(whole, 0.5)
    assert 0.4 < study.sizes(small)["parameters"] / study.sizes(whole)["parameters"] < 0.6


def test_the_results_are_those_of_the_settings(study: ModuleType) -> None:
    file = ROOT / "research/results/shrinking_glue.json"
    content = json.loads(file.read_text())
    assert content["settings"] == json.loads(json.dumps(study.SETTINGS))
    text = study.table(content["results"])
    assert file.with_suffix(".md").read_text() == text
    assert text in (ROOT / "research/README.md").read_text()
