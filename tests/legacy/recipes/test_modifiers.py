from __future__ import annotations

from typing import Any

import pytest

from sparseml.optim import BaseModifier
from sparseml.sparsification import (
    ConstantPruningModifier,
    EpochRangeModifier,
    GMPruningModifier,
    LearningRateModifier,
    SetLearningRateModifier,
    SparsificationTypes,
    TrainableParamsModifier,
)

CASES: list[tuple[Any, dict[str, Any], set[SparsificationTypes]]] = [
    (
        EpochRangeModifier,
        {"start_epoch": 0.0, "end_epoch": 3.0},
        {SparsificationTypes.general, SparsificationTypes.epoch},
    ),
    (
        SetLearningRateModifier,
        {"learning_rate": 0.1, "start_epoch": 1.0, "end_epoch": -1.0, "constant_logging": False},
        {SparsificationTypes.learning_rate},
    ),
    (
        LearningRateModifier,
        {
            "lr_class": "StepLR", "lr_kwargs": {"gamma": 0.5}, "init_lr": 0.1, "start_epoch": 0.0,
            "end_epoch": 2.0, "update_frequency": -1.0, "constant_logging": True,
        },
        {SparsificationTypes.learning_rate},
    ),
    (
        TrainableParamsModifier,
        {
            "params": ["a"], "trainable": False, "params_strict": True, "start_epoch": 0.0,
            "end_epoch": 2.0,
        },
        {SparsificationTypes.general},
    ),
    (
        ConstantPruningModifier,
        {"params": "__ALL__", "start_epoch": 0.0, "end_epoch": 2.0, "update_frequency": -1},
        {SparsificationTypes.pruning},
    ),
    (
        GMPruningModifier,
        {
            "params": ["a"], "init_sparsity": 0.05, "final_sparsity": 0.8, "start_epoch": 0.0,
            "end_epoch": 2.0, "update_frequency": 0.5, "leave_enabled": True,
            "inter_func": "cubic", "mask_type": [1, 4],
        },
        {SparsificationTypes.pruning},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("clazz", "fields", "types"), CASES)
def test_fields(clazz: Any, fields: dict[str, Any], types: set[SparsificationTypes]) -> None:
    modifier = clazz(**fields)
    assert modifier.props(only_serializable=True) == dict(sorted(fields.items()))
    assert set(modifier.sparsification_types) == types


@pytest.mark.parametrize(("clazz", "fields"), [case[:2] for case in CASES])
def test_more_arguments_go_on_to_the_next_class(clazz: Any, fields: dict[str, Any]) -> None:
    class Named(BaseModifier):
        def __init__(self, name: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.name = name

    both = type("Both", (clazz, Named), {})
    modifier = both(**fields, name="x", min_start=-1.0, end_comparator=None)
    assert (modifier.name, modifier._min_start, modifier._end_comparator) == ("x", -1.0, None)
    with pytest.raises(ValueError, match="unknown arguments for Both: nothing"):
        both(**fields, name="x", nothing=3)


@pytest.mark.parametrize("rate", [0.0, 1.5, -0.1, "x", float("nan")])
def test_learning_rates(rate: Any) -> None:
    with pytest.raises(ValueError):
        SetLearningRateModifier(rate)
    with pytest.raises(ValueError):
        LearningRateModifier("StepLR", {}, rate, 0.0)


def test_texts_become_values() -> None:
    assert SetLearningRateModifier("1e-3").learning_rate == 0.001
    assert TrainableParamsModifier("__all__", "False").params == "__ALL__"
    assert TrainableParamsModifier(["a"], "False").trainable is False


def test_fields_can_be_set_until_initialized() -> None:
    modifier = SetLearningRateModifier(0.1)
    modifier.learning_rate = 0.2
    modifier._initialized = True
    with pytest.raises(AttributeError, match="learning_rate of SetLearningRateModifier is frozen"):
        modifier.learning_rate = 0.3
