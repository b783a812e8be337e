"""The study of sparse translators: its table, its recipes and what it reads of a run."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sparseml.pytorch.optim import ScheduledModifierManager

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "research"))
    return importlib.import_module("translation_study")


def test_the_table_tells_how_many_seeds_stand_behind_a_value(study: ModuleType) -> None:
    def row(method: str, seed: int, sparsity: float, bleu: float) -> dict[str, Any]:
        return {"method": method, "seed": seed, "sparsity": sparsity, "bleu": bleu, "error": 1.5}

    rows = [row("dense", 1, 0.0, 31.0), row("cyclic", 1, 0.9, 26.0), row("cyclic", 2, 0.9, 27.0)]
    text = study.table(rows)
    assert "dense model 31.00 (1)" in text and "± 1.5" in text
    assert "| grow-and-prune, cyclic (C-GaP) | - | 26.50 ± 0.71 (2) |" in text


def test_recipes_end_with_the_run_and_leave_all_sparse(study: ModuleType) -> None:
    for method in study.METHODS.values():
        manager = ScheduledModifierManager.from_yaml(method.text(0.9))
        assert manager.max_epochs == study.EPOCHS
        pruner = manager.pruning_modifiers[0]
        assert pruner.end_epoch == pytest.approx(method.until)
        assert pruner.get_applied_sparsity_for_epoch(study.EPOCHS, 100) == [0.9]
