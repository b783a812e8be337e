"""Whether recipe, model and run fit together."""

from __future__ import annotations

import logging

import pytest
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.run import (
    RunError,
    epochs_to_run,
    require_fitting_patterns,
    require_fitting_schedule,
)

RECIPE = """
pattern: 're:body.*'
start: 0.0
end: 3.0
training_modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: eval(end)}
pruning_modifiers:
  - !MagnitudePruningModifier
      params: ['PATTERN']
      init_sparsity: 0.1
      final_sparsity: 0.8
      start_epoch: eval(start)
      end_epoch: eval(end)
      update_frequency: 1.0
"""
WITH_RATE = """
training_modifiers:
  - !SetLearningRateModifier {start_epoch: 0, learning_rate: 0.1}
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 6}
"""


def _manager(pattern: str = "body.weight", **variables: float) -> ScheduledModifierManager:
    text = RECIPE.replace("PATTERN", pattern)
    return ScheduledModifierManager.from_yaml(text, recipe_variables=variables)


def _model() -> nn.Module:
    return nn.ModuleDict({"body": nn.Linear(4, 4)})


def test_patterns_that_match_nothing() -> None:
    require_fitting_patterns(_manager(), _model(), "r.yaml")
    with pytest.raises(RunError, match=r"r.yaml: MagnitudePruningModifier: .*'bodi.weight'"):
        require_fitting_patterns(_manager("bodi.weight"), _model(), "r.yaml")


def test_patterns_for_split_attention_are_told_apart() -> None:
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
    with pytest.raises(RunError, match="--split-qkv gives attention separate layers"):
        require_fitting_patterns(
            _manager("re:.*attn.[qkv].weight"), VisionTransformer(**sizes), "r.yaml"
        )
    encoder = nn.TransformerEncoderLayer(8, 2, 8)  # no layer "qkv" that could be split
    with pytest.raises(RunError, match="no parameter") as told:
        require_fitting_patterns(_manager("re:.*attn.[qkv].weight"), encoder, "r.yaml")
    assert "--split-qkv" not in str(told.value)


@pytest.mark.parametrize(
    ("recipe", "asked", "insists", "expected"),
    [
        (RECIPE, None, False, 3),
        (RECIPE, 5, True, 5),
        (WITH_RATE, 300, False, 6),
        (WITH_RATE, 2, False, 6),
        (WITH_RATE, 9, True, 9),
    ],
)
def test_epochs(recipe: str, asked: int | None, insists: bool, expected: int) -> None:
    manager = ScheduledModifierManager.from_yaml(recipe)
    assert epochs_to_run(manager, asked, insists, "r.yaml") == expected


@pytest.mark.parametrize(("asked", "insists"), [(2, False), (2, True)])
def test_recipes_longer_than_the_run(asked: int, insists: bool) -> None:
    with pytest.raises(RunError, match=r"r.yaml takes 3 epochs, --epochs 2 ends before"):
        epochs_to_run(_manager(), asked, insists, "r.yaml")


def test_recipes_in_steps_longer_than_the_run() -> None:
    text = RECIPE.replace("start_epoch: eval(start)\n      end_epoch: eval(end)", "STEPS")
    text = text.replace("STEPS", "start_step: 0\n      end_step: 41").replace("PATTERN", "x")
    manager = ScheduledModifierManager.from_yaml(text, recipe_variables={"end": 1.0})
    manager.resolve_steps(10)
    with pytest.raises(RunError, match="takes 5 epochs, --epochs 4 ends before"):
        epochs_to_run(manager, 4, True, "r.yaml")


def test_modifiers_that_never_act() -> None:
    with pytest.raises(RunError, match="MagnitudePruningModifier starts at epoch 4 and never acts"):
        require_fitting_schedule(_manager(start=4.0, end=6.0), 5, 4, "r.yaml")


def test_sparsity_that_is_not_reached_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        require_fitting_schedule(_manager(), 5, 4, "r.yaml")
        assert caplog.messages == []
        require_fitting_schedule(_manager(), 5, 3, "r.yaml")
    assert "for the last time at epoch 2, to 0.7741 instead of 0.8" in caplog.messages[0]


def test_layers_that_are_taken_out_have_no_sparsity_to_reach() -> None:
    text = "modifiers:\n  - !LayerPruningModifier {layers: ['body'], start_epoch: START}"
    manager = ScheduledModifierManager.from_yaml(text.replace("START", "1.0"))
    require_fitting_schedule(manager, 5, 4.5, "r.yaml")
    late = ScheduledModifierManager.from_yaml(text.replace("START", "6.0"))
    with pytest.raises(RunError, match=r"never acts in a run of 4\.5 epochs"):
        require_fitting_schedule(late, 5, 4.5, "r.yaml")
