"""A Trainer whose model loses units: what it goes on from, what it writes, which is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sparseml
from sparseml.pytorch.utils.params import parameter_count
from sparseml.transformers import SparseMLCallback

SRP = "!SRPPruningModifier {compression_rate: 0.5, start_epoch: 0.5, end_epoch: 1.5KD}"


def _recipe(distils: bool = False) -> str:
    return f"modifiers:\n  - {SRP.replace('KD', ', kd_weight: 0.5' if distils else '')}"


@pytest.mark.parametrize("distils", [False, True])
def test_resumed_while_units_fade(
    trainer_of: Any, same: Any, tmp_path: Path, distils: bool
) -> None:
    whole = trainer_of(_recipe(distils), save_strategy="steps", save_steps=6)
    before = parameter_count(whole.model)
    whole.train()
    assert parameter_count(whole.model) < 0.6 * before
    again = trainer_of(_recipe(distils))
    again.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-6"))
    same(again.model, whole.model)


def test_resumed_when_units_are_gone(
    trainer_of: Any, model_of: Any, same: Any, tmp_path: Path
) -> None:
    original = model_of()
    whole = trainer_of(_recipe(), save_strategy="steps", save_steps=12)
    whole.train()
    folder = tmp_path / "out/checkpoint-12"
    again = trainer_of(SparseMLCallback(_recipe(), resume_from=folder))
    again.train(resume_from_checkpoint=str(folder))
    same(again.model, whole.model)
    loaded = sparseml.load_shrunk(folder)
    assert parameter_count(loaded) == parameter_count(whole.model) < parameter_count(original)


def test_a_teacher_that_was_larger_is_asked_for(
    trainer_of: Any, model_of: Any, same: Any, tmp_path: Path
) -> None:
    whole = trainer_of(_recipe(True), save_strategy="steps", save_steps=12)
    whole.train()
    folder = tmp_path / "out/checkpoint-12"
    again = trainer_of(SparseMLCallback(_recipe(True), resume_from=folder))
    with pytest.raises(ValueError, match="or give it as distillation_teacher"):
        again.train(resume_from_checkpoint=str(folder))
    callback = SparseMLCallback(_recipe(True), resume_from=folder, teacher=model_of())
    again = trainer_of(callback)
    again.train(resume_from_checkpoint=str(folder))
    same(again.model, whole.model)


def test_the_best_model_is_a_small_one(trainer_of: Any, data_of: Any) -> None:
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = trainer_of(
        _recipe(), more={"eval_dataset": data_of(count=8)}, metric_for_best_model="loss", **settings
    )
    trainer.train()
    assert trainer.state.best_global_step > 6  # after the removal, in the second epoch
    loss = trainer.evaluate()["eval_loss"]
    assert loss == pytest.approx(trainer.state.best_metric, rel=1e-5)
    assert all(bool(torch.isfinite(param).all()) for param in trainer.model.parameters())
