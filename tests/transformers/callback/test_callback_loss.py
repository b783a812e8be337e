"""Modifiers that change the loss, in a Trainer, whose callbacks cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from sparseml.transformers import SparseMLCallback

DISTILLED = "- !DistillationModifier {hardness: HARDNESS, temperature: 2.0, start_epoch: 0}"
BY_LAYER = (
    "- !PerLayerDistillationModifier "
    "{start_epoch: 0, student_layer_names: ['transformer.h.0.mlp.c_fc']}"
)
PENALTY = "- !ASRegModifier {layers: ['transformer.h.0.mlp.c_fc'], alpha: 1.0, start_epoch: 0}"
NOTHING = "- !EpochRangeModifier {start_epoch: 0, end_epoch: 2}"


def recipe_of(modifier: str, hardness: float = 0.5) -> str:
    """A recipe of one modifier."""
    return f"modifiers:\n  {modifier}".replace("HARDNESS", str(hardness))


def losses_of(trainer: Any) -> list[float]:
    """The losses that were logged."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def near(one: Any, other: Any, difference: float = 1e-6) -> bool:
    """Whether the models of two Trainers have the same weights, up to rounding."""
    pairs = zip(one.model.parameters(), other.model.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=0, atol=difference) for a, b in pairs)


@pytest.fixture
def trained(trainer_of: Any, model_of: Any, data_of: Any) -> Any:
    """Trains a causal model with a recipe."""

    def train(recipe: str, model_kind: str = "gpt2", teacher: Any = None, **settings: Any) -> Any:
        chosen = {
            "optim": "sgd",
            "learning_rate": 0.1,
            "lr_scheduler_type": "constant",
            "num_train_epochs": 2,
            "train_sampling_strategy": "sequential",
            **settings,
        }
        callback = SparseMLCallback(recipe, teacher=teacher)
        trainer = trainer_of(callback, model_of(model_kind), data_of(model_kind, 16), **chosen)
        trainer.train()
        return trainer

    return train


@pytest.mark.parametrize("hardness", [0.0, 0.5, 1.0])
def test_accumulated_batches_weigh_what_they_do_as_one(
    trained: Any, model_of: Any, hardness: float
) -> None:
    """Although the Trainer has the model divide its loss by the items of all batches."""
    recipe, teacher = recipe_of(DISTILLED, hardness), model_of("gpt2", seed=5)
    whole = trained(recipe, teacher=teacher, per_device_train_batch_size=8)
    parts = trained(recipe, teacher=teacher, gradient_accumulation_steps=2)
    assert near(whole, parts)
    if hardness == 0.0:
        assert near(whole, trained(recipe_of(NOTHING), per_device_train_batch_size=8), 1e-7)
    else:
        assert losses_of(whole)[0] < 2.0, "the cross entropy alone is 3"


@pytest.mark.parametrize("kind", ["bert", "t5", "vit"])
def test_kinds_of_models(trained: Any, model_of: Any, kind: str) -> None:
    """The predictions are compared, not what else a model returns."""
    alone = losses_of(trained(recipe_of(NOTHING), kind))
    taught = losses_of(trained(recipe_of(DISTILLED, 0.9), kind, model_of(kind, seed=3)))
    assert taught[0] < 0.8 * alone[0]


def test_a_teacher_in_a_folder(trained: Any, model_of: Any, tmp_path: Path) -> None:
    teacher = model_of("gpt2", seed=5)
    teacher.save_pretrained(tmp_path / "teacher")
    recipe = recipe_of(DISTILLED)
    assert near(
        trained(recipe, teacher=tmp_path / "teacher"), trained(recipe, teacher=teacher), 0.0
    )


def test_a_teacher_that_takes_other_inputs(trainer_of: Any, model_of: Any, data_of: Any) -> None:
    config = transformers.DistilBertConfig(
        vocab_size=32, dim=16, n_layers=1, n_heads=2, hidden_dim=8
    )
    teacher = transformers.DistilBertForSequenceClassification(config)
    rows = [{**row, "token_type_ids": torch.zeros(8, dtype=torch.long)} for row in data_of()]
    trainer_of(SparseMLCallback(recipe_of(DISTILLED), teacher=teacher), data=rows).train()


@pytest.mark.parametrize("modifier", [BY_LAYER, PENALTY], ids=["by layer", "penalty"])
def test_recomputed_activations(trained: Any, model_of: Any, modifier: str) -> None:
    teacher = model_of("gpt2", seed=5) if modifier == BY_LAYER else None
    plain, changed = trained(recipe_of(NOTHING)), trained(recipe_of(modifier), teacher=teacher)
    assert losses_of(changed)[0] > losses_of(plain)[0]
    again = trained(recipe_of(modifier), teacher=teacher, activation_checkpointing=True)
    assert near(changed, again, 0.0)


def test_projections_follow_the_scheduler(trained: Any, model_of: Any) -> None:
    """Their group of parameters is none that the scheduler knows."""
    settings = {"lr_scheduler_type": "linear", "warmup_steps": 2}
    found = trained(recipe_of(BY_LAYER), teacher=model_of("gpt2", seed=5), **settings)
    groups = found.optimizer.param_groups
    assert len(groups) == 3
    assert groups[-1]["lr"] == groups[0]["lr"] == 0.0
    assert all(param.grad is None for param in groups[-1]["params"])


def test_the_model_is_left_as_it_was(trained: Any, model_of: Any) -> None:
    model = trained(recipe_of(DISTILLED), teacher=model_of("gpt2", seed=5)).model
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


class _Own(transformers.Trainer):
    def compute_loss(self, model: Any, inputs: Any, **kwargs: Any) -> Any:
        return model(**inputs).logits.square().mean()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        pytest.param(
            {"label_smoothing_factor": 0.1}, "GPT2LMHeadModel returns none", id="smoothing"
        ),
        pytest.param(
            {"more": {"compute_loss_func": lambda found, *_, **__: found.logits.mean()}},
            "GPT2LMHeadModel returns none",
            id="function",
        ),
        pytest.param({"kind": _Own}, "trains by another one", id="subclass"),
    ],
)
def test_a_loss_that_nothing_changes(
    trained: Any, model_of: Any, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=f"DistillationModifier of the recipe changes .*{told}"):
        trained(recipe_of(DISTILLED), teacher=model_of("gpt2", seed=5), **settings)
