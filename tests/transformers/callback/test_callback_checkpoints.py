"""Checkpoints of a Trainer hold the recipe's state: resuming, the best model, what lies there."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.transformers import SparseMLCallback

PRUNED = "params: ['re:.*encoder.*(query|dense).weight']"
WHEN = "start_epoch: 0.5, end_epoch: 2.0"
GRADUAL = f"init_sparsity: 0.25, final_sparsity: 0.75, {WHEN}, update_frequency: 0.5, {PRUNED}"
MAGNITUDE = f"modifiers:\n  - !MagnitudePruningModifier {{{GRADUAL}}}"
RECIPES = {
    "magnitude": f"!MagnitudePruningModifier {{{GRADUAL}}}",
    "momentum": f"!SnipMomentumPruningModifier {{{GRADUAL}}}",
    "sampled": f"!OBSPruningModifier {{num_grads: 4, fisher_block_size: 4, {GRADUAL}}}",
    "back again": f"!TopKASTPruningModifier {{forward_sparsity: 0.75, backward_sparsity: 0.5, "
    f"{WHEN}, update_frequency: 0.5, {PRUNED}}}",
    "wrapped layers": f"!PowerpropagationModifier {{{PRUNED}, alpha: 2.0, {WHEN}}}",
    "layers taken out": "!LayerPruningModifier "
    f"{{layers: ['bert.encoder.layer.1.attention.output.dense'], {WHEN}}}",
    "rates": "!LearningRateFunctionModifier "
    "{lr_func: cosine, init_lr: 0.01, final_lr: 0.001, start_epoch: 0.5, end_epoch: 3.0}",
    "distillation": f"!DistillationModifier {{hardness: 0.5, temperature: 2.0, {WHEN}}}",
    "projections": "!PerLayerDistillationModifier "
    f"{{student_layer_names: ['bert.encoder.layer.0.intermediate.dense'], {WHEN}}}",
}


def _callback(recipe: str, **kwargs: Any) -> SparseMLCallback:
    teacher = "self" if "Distillation" in recipe else None
    return SparseMLCallback(recipe, teacher=teacher, **kwargs)


class TestResuming:
    @pytest.mark.parametrize("name", RECIPES)
    def test_equals_a_whole_run(
        self, trainer_of: Any, same: Any, tmp_path: Path, name: str
    ) -> None:
        """In the middle of an epoch, and between two updates of the masks."""
        recipe = f"modifiers:\n  - {RECIPES[name]}"
        whole = trainer_of(_callback(recipe), save_strategy="steps", save_steps=8)
        whole.train()
        again = trainer_of(_callback(recipe))
        again.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-8"))
        same(again.model, whole.model)
        logged = [
            [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
            for trainer in (whole, again)
        ]
        assert logged[0] == logged[1]

    @pytest.mark.parametrize("step", [4, 6])
    def test_at_other_moments(
        self, trainer_of: Any, same: Any, zeros: Any, tmp_path: Path, step: int
    ) -> None:
        """At the end of an epoch, and before the last batch that is accumulated."""
        settings = {"gradient_accumulation_steps": 2, "num_train_epochs": 4}
        whole = trainer_of(MAGNITUDE, save_strategy="steps", save_steps=step, **settings)
        whole.train()
        again = trainer_of(MAGNITUDE, **settings)
        again.train(resume_from_checkpoint=str(tmp_path / f"out/checkpoint-{step}"))
        same(again.model, whole.model)
        assert zeros(again.model) == 384

    def test_the_last_checkpoint_after_an_interruption(
        self, trainer_of: Any, same: Any, tmp_path: Path
    ) -> None:
        """By another Trainer, and by the same one, whose masks are further than the checkpoint."""
        again: list[bool] = []

        class Interrupted(transformers.Trainer):
            def training_step(self, *args: Any, **kwargs: Any) -> Any:
                if self.state.global_step == 14 and not again:
                    again.append(True)
                    raise KeyboardInterrupt
                return super().training_step(*args, **kwargs)

        whole = trainer_of(MAGNITUDE, out="whole")
        whole.train()
        settings = {"save_strategy": "steps", "save_steps": 8, "save_total_limit": 1}
        trainer = trainer_of(MAGNITUDE, kind=Interrupted, **settings)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "checkpoint-8"}
        shutil.copytree(tmp_path / "out", tmp_path / "copied")
        trainer.train(resume_from_checkpoint=True)
        same(trainer.model, whole.model)
        other = trainer_of(MAGNITUDE, out="copied", **settings)
        other.train(resume_from_checkpoint=True)
        same(other.model, whole.model)

    def test_a_folder_elsewhere(self, trainer_of: Any, same: Any, tmp_path: Path) -> None:
        whole = trainer_of(MAGNITUDE, save_strategy="steps", save_steps=8)
        whole.train()
        folder = tmp_path / "elsewhere"
        shutil.move(tmp_path / "out/checkpoint-8", folder)
        with pytest.raises(ValueError, match=r"goes on from step 8 .* resume_from=FOLDER"):
            trainer_of(MAGNITUDE).train(resume_from_checkpoint=str(folder))
        again = trainer_of(SparseMLCallback(MAGNITUDE, resume_from=folder))
        again.train(resume_from_checkpoint=str(folder))
        same(again.model, whole.model)

    def test_what_is_refused(self, trainer_of: Any, tmp_path: Path) -> None:
        trainer_of(MAGNITUDE, save_strategy="steps", save_steps=8, save_total_limit=2).train()
        other = trainer_of(MAGNITUDE.replace("0.75", "0.8"))
        told = r"checkpoint-18/sparseml_state.pt is of another recipe: 'final_sparsity: 0.75' there"
        with pytest.raises(ValueError, match=told):
            other.train(resume_from_checkpoint=True)
        state = tmp_path / "out/checkpoint-18/sparseml_state.pt"
        state.write_bytes(state.read_bytes()[:-100])
        with pytest.raises(RuntimeError, match=r"sparseml_state.pt is damaged"):
            trainer_of(MAGNITUDE).train(resume_from_checkpoint=True)
        torch.save({"weights": torch.ones(2)}, state)
        with pytest.raises(ValueError, match="was not written by SparseMLCallback"):
            trainer_of(MAGNITUDE).train(resume_from_checkpoint=True)
        state.unlink()
        with pytest.raises(ValueError, match=r"has no sparseml_state.pt: it was written without"):
            trainer_of(MAGNITUDE).train(resume_from_checkpoint=True)


class _Judged(transformers.Trainer):
    """Finds metrics that are given to it."""

    judged: Iterator[int]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        found = {"eval_good": next(_Judged.judged)}
        self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


@pytest.fixture
def judged(trainer_of: Any, data_of: Any) -> Any:
    """Makes a Trainer that keeps the best of its models by metrics given, one for each step."""

    def make(metrics: list[int], callback: Any, stops: bool = False) -> Any:
        _Judged.judged = iter(metrics)
        trainer = trainer_of(
            callback,
            kind=_Judged,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=1,
            load_best_model_at_end=True,
            metric_for_best_model="good",
            greater_is_better=True,
            more={"eval_dataset": data_of()},
        )
        if stops:
            trainer.add_callback(transformers.EarlyStoppingCallback(1))
        return trainer

    return make


SINKING = list(range(18, 0, -1))


class TestTheBestModel:
    def test_is_one_as_sparse_as_asked_for(self, judged: Any, zeros: Any, tmp_path: Path) -> None:
        trainer = judged(SINKING, SparseMLCallback(MAGNITUDE))
        trainer.train()
        assert trainer.state.best_global_step == 13, "the first with the last masks"
        assert zeros(trainer.model) == 384
        saved = load_file(tmp_path / "out/checkpoint-13/model.safetensors")
        state = trainer.model.state_dict()
        assert all(value.equal(state[name]) for name, value in saved.items())

    def test_of_all(self, judged: Any, zeros: Any, tmp_path: Path) -> None:
        """Its own masks hold, not those of the end."""
        trainer = judged(SINKING, SparseMLCallback(MAGNITUDE, best_when_sparse=False))
        trainer.train()
        assert trainer.state.best_global_step == 1
        assert zeros(trainer.model) == 0
        saved = load_file(tmp_path / "out/checkpoint-1/model.safetensors")
        state = trainer.model.state_dict()
        assert all(value.equal(state[name]) for name, value in saved.items())

    def test_stopping_early_waits_for_the_last_masks(self, judged: Any, zeros: Any) -> None:
        trainer = judged(SINKING, SparseMLCallback(MAGNITUDE), stops=True)
        trainer.train()
        assert trainer.state.global_step == 14
        assert zeros(trainer.model) == 384

    def test_a_recipe_that_is_cut_short(
        self, judged: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        callback = SparseMLCallback(MAGNITUDE, best_when_sparse=False)
        with caplog.at_level(logging.WARNING):
            judged(SINKING, callback, stops=True).train()
        assert "the recipe has not run to its end: stopped at step 2 of 12" in caplog.text


class TestWhatLiesThere:
    def test_the_recipe_beside_the_model(self, trainer_of: Any, tmp_path: Path) -> None:
        callback = SparseMLCallback(MAGNITUDE)
        trainer = trainer_of(callback, save_strategy="steps", save_steps=8)
        trainer.train()
        trainer.save_model()
        callback.save_recipe(tmp_path)
        for folder in (tmp_path / "out/checkpoint-8", tmp_path / "out", tmp_path):
            manager = ScheduledModifierManager.from_yaml(folder / "recipe.yaml")
            assert str(manager) == str(callback.manager)

    def test_models_only(self, trainer_of: Any, tmp_path: Path) -> None:
        trainer_of(MAGNITUDE, save_strategy="steps", save_steps=8, save_only_model=True).train()
        names = {path.name for path in (tmp_path / "out/checkpoint-8").iterdir()}
        assert "recipe.yaml" in names
        assert "sparseml_state.pt" not in names
