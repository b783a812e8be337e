"""What does not fit together is told in one line, before anything is trained."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
import transformers

from sparseml.optim.errors import RecipeError
from sparseml.run import RunError
from sparseml.transformers import SparseMLCallback

PRUNED = "re:.*encoder.*(query|dense).weight"
MAGNITUDE = f"""
modifiers:
  - !MagnitudePruningModifier
      params: ['{PRUNED}']
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0.5
      end_epoch: 2.0
      update_frequency: 0.5
"""
DISTILLED = "modifiers:\n  - !DistillationModifier {start_epoch: 0}"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_train_epochs": 1}, r"until epoch 2, for 12 steps .* after 6 steps \(epoch 1\)"),
        ({"max_steps": 9}, r"after 9 steps \(epoch 1.5\): give num_train_epochs=2 without"),
        ({"gradient_accumulation_steps": 6, "max_steps": 1}, r"for 2 steps of which 1 make"),
    ],
)
def test_a_recipe_longer_than_the_run(trainer_of: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        trainer_of(MAGNITUDE, **settings).train()
    assert isinstance(raised.value, RunError)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("pattern", ["re:.*qkv.*", "transformer.h.0.mlp.c_fc.weight"])
def test_a_recipe_for_another_architecture(trainer_of: Any, pattern: str) -> None:
    """It is told as the Trainer is made."""
    told = r"the recipe: MagnitudePruningModifier: .* matches no parameter.*Classification\)"
    with pytest.raises(ValueError, match=told):
        trainer_of(MAGNITUDE.replace(PRUNED, pattern))


def test_no_recipe() -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: the recipe does not exist"):
        SparseMLCallback("nowhere.yaml")


def test_teachers(trainer_of: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    for given in (tmp_path, "nowhere", 5):
        with pytest.raises(ValueError, match="teacher must be a module, 'self', 'disable', or"):
            SparseMLCallback(DISTILLED, teacher=given)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"teacher .* cannot be loaded"):
        SparseMLCallback(DISTILLED, teacher=tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x08" * 99)
    with pytest.raises(ValueError, match=r"teacher .*: the weights are damaged: Error while"):
        SparseMLCallback(DISTILLED, teacher=tmp_path)
    with pytest.raises(ValueError, match="DistillationModifier of the recipe needs a teacher"):
        trainer_of(DISTILLED)
    with caplog.at_level(logging.WARNING):
        trainer_of(SparseMLCallback(MAGNITUDE, teacher="self"))
    assert "has no distillation: the teacher is not used" in caplog.text


def test_steps_without_a_beginning(trainer_of: Any) -> None:
    trainer = trainer_of(MAGNITUDE)
    late = SparseMLCallback(MAGNITUDE)
    with pytest.raises(ValueError, match="give the callback to the Trainer before training"):
        late.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)


def test_data_without_a_length(trainer_of: Any, data_of: Any, zeros: Any) -> None:
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(data_of())

    given = {"data": Endless(), "max_steps": 14}
    with pytest.raises(ValueError, match="for 28 steps of which 14 make an epoch"):
        trainer_of(MAGNITUDE, **given).train()
    trainer = trainer_of(SparseMLCallback(MAGNITUDE, steps_per_epoch=6), **given)
    trainer.train()
    assert zeros(trainer.model) == 384


def test_gradients_without_labels(trainer_of: Any, data_of: Any) -> None:
    class Unlabelled(transformers.Trainer):
        def compute_loss(self, model: Any, inputs: Any, **kwargs: Any) -> Any:
            return model(**inputs).logits.square().mean()

    recipe = MAGNITUDE.replace("!Magnitude", "!OBS").replace("params", "num_grads: 4\n      params")
    rows = [{"input_ids": row["input_ids"]} for row in data_of()]
    with pytest.raises(ValueError, match="but the model returns none for the Trainer's training"):
        trainer_of(recipe, data=rows, kind=Unlabelled).train()


def test_optimizers_without_a_step(trainer_of: Any) -> None:
    trainer = trainer_of(MAGNITUDE, optim="lomo")
    with pytest.raises(ValueError, match="SparseMLCallback does not work with optim='lomo'"):
        trainer.callback_handler.on_train_begin(trainer.args, trainer.state, trainer.control)
