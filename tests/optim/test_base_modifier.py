from __future__ import annotations

import hashlib
from typing import Any

import pytest
import yaml

from sparseml.optim import BaseModifier, BaseObject, ModifierProp, ModifierYAML
from sparseml.optim.language.registration import registered_modifiers
from sparseml.sparsification import (
    ConstantPruningModifier,
    EpochRangeModifier,
    GMPruningModifier,
    SetLearningRateModifier,
    SparsificationTypes,
)


def test_leftover_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown arguments for BaseObject: colour, size"):
        BaseObject(size=1, colour=2)
    clazz: Any = BaseObject
    with pytest.raises(TypeError):
        clazz(1)


def test_a_new_modifier_is_enabled_and_not_initialized() -> None:
    modifier = BaseModifier()
    assert modifier.enabled and not modifier.initialized
    assert modifier.sparsification_types == []
    modifier._initialized = True
    modifier.enabled = False
    assert not modifier.enabled and modifier.initialized
    with pytest.raises(AttributeError):
        modifier.initialized = False


def test_a_derived_class_can_replace_the_types() -> None:
    class Pruner(BaseModifier):
        @BaseModifier.sparsification_types.getter
        def sparsification_types(self) -> list[SparsificationTypes]:
            return [SparsificationTypes.pruning]

    assert Pruner().sparsification_types == [SparsificationTypes.pruning]
    assert "sparsification_types" not in Pruner().props(only_serializable=True)


class Described(BaseModifier):
    def __init__(self, text: Any = "x", nothing: Any = None, usual: int = 3) -> None:
        super().__init__()
        self._text, self._nothing, self._usual = text, nothing, usual

    @ModifierProp()
    def text(self) -> Any:
        return self._text

    @ModifierProp()
    def nothing(self) -> Any:
        return self._nothing

    @ModifierProp(no_serialize_val=3)
    def usual(self) -> int:
        return self._usual


def test_props_come_sorted_and_without_what_is_not_to_be_shown() -> None:
    assert Described().props(only_serializable=True) == {"text": "x"}
    shown = Described(nothing=0, usual=4).props(only_serializable=True)
    assert list(shown.items()) == [("nothing", 0), ("text", "x"), ("usual", 4)]
    every = Described().props(only_serializable=False)
    assert list(every) == ["enabled", "initialized", "sparsification_types", "text"]


def test_props_can_be_formatted_in_one_way_only() -> None:
    assert Described().props(True, format_str=True) == {"text": "x"}
    assert Described().props(True, format_repr=True) == {"text": "'x'"}
    with pytest.raises(ValueError, match="only one of"):
        Described().props(True, format_str=True, format_repr=True)


def test_identifiers_are_stable() -> None:
    # stored in checkpoints as keys: it must never change
    expected = "EpochRangeModifier-475458c5f3aec75a9bbfc98b9e7243dd"
    modifier = EpochRangeModifier(0.0, 3.0)
    assert modifier.identifier() == expected
    assert modifier.identifier("a") == f"{expected}-a"
    fields = hashlib.md5(b"['end_epoch:4.0', 'start_epoch:0.0']").hexdigest()
    assert EpochRangeModifier(0.0, 4.0).identifier().endswith(fields)


def test_text_has_no_framework() -> None:
    modifier = EpochRangeModifier(0.0, 3.0)
    assert str(modifier) == "!EpochRangeModifier\n    end_epoch: 3.0\n    start_epoch: 0.0"
    assert repr(modifier).startswith("EpochRangeModifier({'enabled': 'True', 'end_epoch': '3.0'")
    assert BaseModifier.yaml_key(EpochRangeModifier) == "!EpochRangeModifier"
    assert BaseModifier.yaml_key(EpochRangeModifier, "toy") == "!toy.EpochRangeModifier"


def test_sort_order() -> None:
    modifiers: list[Any] = [
        SetLearningRateModifier(0.1),
        EpochRangeModifier(0.0, 5.0),
        EpochRangeModifier(0.0, 2.0),
        ConstantPruningModifier("__ALL__"),
        GMPruningModifier(0.05, 0.8, 0.0, 5.0, 1.0, "__ALL__"),
    ]
    ordered = sorted(modifiers, key=lambda m: (m.end_epoch < 0, m.end_epoch, m.start_epoch))
    for earlier, later in zip(ordered, ordered[2:], strict=False):
        assert BaseModifier.comparator(earlier, later) in (-1, 0)
    one, two, never = modifiers[2], modifiers[1], modifiers[0]
    assert BaseModifier.comparator(one, two) == -1
    assert BaseModifier.comparator(two, one) == 1
    assert BaseModifier.comparator(one, one) == 0
    assert BaseModifier.comparator_ends(never, two) == 1
    assert BaseModifier.comparator_starts(never, two) == -1
    assert BaseModifier.comparator_identifiers(one, one) == 0
    assert BaseModifier.comparator_lists([one], [two]) == -1


def test_registration_with_both_loaders() -> None:
    @ModifierYAML("toy_registration")
    class Registered(Described):
        pass

    text = "!toy_registration.Registered {text: 1, log_types: python}"
    for loader in (yaml.SafeLoader, yaml.FullLoader):
        made = yaml.load(text, Loader=loader)
        assert type(made) is Registered
        assert made.text == 1
    assert type(yaml.safe_load("!toy_registration.Registered")) is Registered
    assert set(registered_modifiers("toy_registration")) == {"Registered"}


def test_registration_can_swap_the_class() -> None:
    class Other(Described):
        pass

    @ModifierYAML("toy_swap", swap_class_by_state_fn=lambda s: Other if "usual" in s else Swapped)
    class Swapped(Described):
        pass

    assert type(yaml.safe_load("!toy_swap.Swapped {usual: 1}")) is Other
    assert type(yaml.safe_load("!toy_swap.Swapped {text: 1}")) is Swapped
    assert type(BaseModifier.load_framework_obj("!Swapped {usual: 1}", "toy_swap")) is Other


@pytest.mark.parametrize("framework", ["", None])
def test_registration_needs_a_framework(framework: Any) -> None:
    with pytest.raises(ValueError, match="framework"):
        ModifierYAML(framework)


def test_schedules_can_be_checked_once_more() -> None:
    from sparseml.sparsification import EpochRangeModifier, SetLearningRateModifier

    modifier = EpochRangeModifier(start_epoch=1.0, end_epoch=2.0)
    modifier.validate()
    modifier._end_epoch = 0.5
    with pytest.raises(ValueError, match="end_epoch"):
        modifier.validate()
    SetLearningRateModifier(0.1).validate()
