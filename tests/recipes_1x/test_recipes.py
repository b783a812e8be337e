"""Recipes of SparseML 1.x load, print and are called as there."""

from __future__ import annotations

import ast
import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import EpochRangeModifier, Modifier, QuantizationModifier

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from recipes import EPOCHS, MODIFIERS, PRUNED, REPEATED, STAGED, TEXTS  # noqa: E402

sys.path.remove(str(HERE))

PRINTED: dict[str, list[str]] = {}
for section in (HERE / "printed.txt").read_text(encoding="utf-8").split("### ")[1:]:
    title, _, content = section.partition("\n")
    PRINTED[title] = content.removesuffix("\n").split("\n=> ")


def of_one(text: str) -> Any:
    manager = ScheduledModifierManager.from_yaml(f"modifiers:\n    - {text}\n")
    return manager.modifiers[0]


@pytest.mark.parametrize("name", TEXTS)
def test_a_recipe_prints_as_it_did(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(TEXTS[name].encode())
    printed, *identifiers = PRINTED[name]
    for given in (path, str(path), TEXTS[name]):
        manager = ScheduledModifierManager.from_yaml(given)
        assert str(manager) == printed
        assert [one.identifier() for one in manager.iter_modifiers()] == identifiers
    again = ScheduledModifierManager.from_yaml(printed)
    assert str(again) == printed


@pytest.mark.parametrize("name", MODIFIERS)
def test_a_modifier_prints_as_it_did(name: str) -> None:
    modifier = of_one(MODIFIERS[name])
    printed, identifier = PRINTED[name]
    assert str(modifier) == printed
    assert modifier.identifier() == identifier
    again = Modifier.load_obj(printed)
    assert type(again) is type(modifier)
    assert (str(again), again.identifier()) == (printed, identifier)
    # the rule, told apart from how the package follows it
    fields = [f"{key}:{value}" for key, value in modifier.props(True).items()]
    digest = hashlib.md5(str(sorted(fields)).encode()).hexdigest()
    assert identifier == f"{type(modifier).__name__}-{digest}"


def test_identifiers_that_1x_gave() -> None:
    assert (
        of_one(MODIFIERS["GM"]).identifier() == "GMPruningModifier-d48ab6832c5602cb66570f54a7b67caf"
    )
    assert (
        EpochRangeModifier(0.0, 3.0).identifier()
        == "EpochRangeModifier-475458c5f3aec75a9bbfc98b9e7243dd"
    )


@pytest.mark.parametrize(
    ("name", "field"),
    [("MFAC", "num_grads"), ("MultiStep", "lr_kwargs"), ("GM, groups", "final_sparsity")],
)
def test_mappings_keep_their_order_when_one_modifier_is_loaded(name: str, field: str) -> None:
    loaded = getattr(Modifier.load_obj(MODIFIERS[name]), field)
    assert loaded == ast.literal_eval(str(getattr(of_one(MODIFIERS[name]), field)))
    assert list(loaded) != sorted(loaded)


def test_a_repeated_key_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    ScheduledModifierManager.from_yaml(REPEATED)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "the key 'end_epoch' occurs twice, in line 4 and in line 5; the last value holds"
    ]


@pytest.mark.parametrize("stub", ["zoo:cv/classification/resnet_v1-50/pytorch/sparseml", "zoo:a"])
def test_stubs_of_the_zoo_say_that_it_was_shut_down(stub: str) -> None:
    with pytest.raises(ValueError, match="the model zoo, which was shut down"):
        ScheduledModifierManager.from_yaml(stub)


def test_composing_keeps_whole_numbers() -> None:
    first = PRUNED.replace("end_epoch: 5\n", "end_epoch: -1\n")
    second = """modifiers:
  - !LearningRateModifier
    lr_class: MultiStepLR
    lr_kwargs: {milestones: [2, 3], gamma: 0.1}
    init_lr: 0.1
    start_epoch: 0
    end_epoch: 4
  - !QuantizationModifier
    start_epoch: 2
    submodules: [a]
    freeze_bn_stats_epoch: 3
"""
    text = str(ScheduledModifierManager.compose_staged(first, second))
    assert "end_epoch: 10\n" in text and "'milestones': [12, 13]" in text
    assert "freeze_bn_stats_epoch: 13\n" in text and "end_epoch: 14.0" in text


def test_an_epoch_that_is_assigned_stays_as_given() -> None:
    modifier = EpochRangeModifier(0, 3)
    assert "end_epoch: 3.0\n    start_epoch: 0.0" in str(modifier)
    modifier.end_epoch, modifier.start_epoch = 5, 1
    assert "end_epoch: 5\n    start_epoch: 1" in str(modifier)


def test_numbers_of_texts_are_numbers_to_other_readers_of_yaml() -> None:
    modifier = of_one(MODIFIERS["SetWeightDecay"])
    assert modifier.weight_decay * 2 == 2e-4
    assert yaml.safe_load(yaml.safe_dump({"a": modifier.weight_decay})) == {"a": 1e-4}


def test_stages_keep_their_order() -> None:
    manager = ScheduledModifierManager.from_yaml(STAGED)
    assert list(manager.modifiers) == ["pruning_stage", "next_stage"]
    assert manager == ScheduledModifierManager.from_yaml(str(manager))
    assert ScheduledModifierManager.from_yaml(EPOCHS) != manager


def test_both_quantization_tags_have_their_class() -> None:
    newer, older = of_one(MODIFIERS["Quantization"]), of_one(MODIFIERS["Quantization, old"])
    assert type(newer) is QuantizationModifier and type(older) is not QuantizationModifier
    assert type(older).__name__ == "QuantizationModifier"
