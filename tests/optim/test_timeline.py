from __future__ import annotations

from typing import Any

import pytest

from sparseml.optim import BaseManager, BaseModifier, BaseScheduled
from sparseml.sparsification import (
    ConstantPruningModifier,
    EpochRangeModifier,
    GMPruningModifier,
    SetLearningRateModifier,
    SparsificationTypes,
)


class Quantizer(BaseScheduled):
    def __init__(self, start_epoch: float) -> None:
        super().__init__(start_epoch=start_epoch, end_comparator=-1)

    @BaseModifier.sparsification_types.getter
    def sparsification_types(self) -> list[SparsificationTypes]:
        return [SparsificationTypes.quantization, SparsificationTypes.structured]


def pruner(start: float, end: float) -> GMPruningModifier:
    return GMPruningModifier(0.05, 0.8, start, end, 0.5, "__ALL__")


def test_epochs_are_rounded_outwards() -> None:
    manager = BaseManager([pruner(1.5, 3.2), ConstantPruningModifier("__ALL__")])
    assert (manager.min_epochs, manager.max_epochs) == (1, 4)
    assert type(manager.min_epochs) is int and type(manager.max_epochs) is int
    assert BaseManager([SetLearningRateModifier(0.1, start_epoch=7.5)]).max_epochs == 8


def test_epochs_that_nobody_names() -> None:
    manager = BaseManager([ConstantPruningModifier("__ALL__")])
    assert (manager.min_epochs, manager.max_epochs) == (-1, -1)
    assert manager.get_start_end_epochs() == {"all": (-1, -1)}
    assert manager.get_last_start_epoch() == 0.0


def test_modifiers_by_kind() -> None:
    modifiers: list[Any] = [
        pruner(0, 1), EpochRangeModifier(0, 1), SetLearningRateModifier(0.1), Quantizer(2.0),
    ]  # fmt: skip
    manager = BaseManager(modifiers)
    assert manager.pruning_modifiers == [modifiers[0]]
    assert manager.epoch_modifiers == [modifiers[1]]
    assert manager.learning_rate_modifiers == [modifiers[2]]
    assert manager.quantization_modifiers == manager.structured_modifiers == [modifiers[3]]
    assert manager.distillation_modifiers == []


def test_qat_active() -> None:
    manager = BaseManager([Quantizer(2.0)])
    assert not manager.qat_active(1.0)
    assert manager.qat_active(1.1)
    assert not BaseManager([pruner(0, 1)]).qat_active(100.0)


@pytest.mark.parametrize(
    ("modifiers", "epoch", "phase"),
    [
        ([EpochRangeModifier(0, 9)], 5, "dense"),
        ([pruner(1, 4)], 0.5, "dense"),
        ([pruner(1, 4)], 1, None),
        ([pruner(1, 4)], 4, None),
        ([pruner(1, 4)], 4.1, "pruned"),
        ([ConstantPruningModifier("__ALL__")], 0, "pruned"),
        ([Quantizer(2)], 1.9, "dense"),
        ([Quantizer(2)], 2, None),
        ([Quantizer(2)], 2.1, "dense_quantized"),
        ([Quantizer(2), Quantizer(3)], 2.5, None),
        ([pruner(1, 4), Quantizer(6)], 5, "pruned"),
        ([pruner(1, 4), Quantizer(6)], 7, "pruned_quantized"),
        ([pruner(1, 4), Quantizer(4)], 5, "quantized_pruned"),
        ([pruner(5, 8), Quantizer(2)], 4, "dense_quantized"),
        ([pruner(5, 8), Quantizer(2)], 9, "quantized_pruned"),
    ],
)
def test_phase(modifiers: list[Any], epoch: float, phase: str | None) -> None:
    assert BaseManager(modifiers).phase(epoch) == phase


def test_bounds_of_stages() -> None:
    manager = BaseManager(
        {
            "a": [EpochRangeModifier(0.0, 3.0)],
            "b": [SetLearningRateModifier(0.1, start_epoch=3.0), pruner(3.0, 5.0)],
            "c": [SetLearningRateModifier(0.1, start_epoch=6.0)],
        }
    )
    assert list(manager.modifiers) == ["a", "b", "c"]
    assert manager.get_start_end_epochs() == {"a": (0.0, 3.0), "b": (3.0, 5.0), "c": (6.0, 6.0)}
    assert manager.get_last_start_epoch() == 6.0
    plain = BaseManager([EpochRangeModifier(0.0, 3.0)])
    assert plain.get_start_end_epochs() == {"all": (0, 3)}


def test_update_steps_say_nothing_about_bounds() -> None:
    frequent = GMPruningModifier(0.05, 0.8, 0.0, 4.0, params="__ALL__", update_steps=3)
    assert BaseManager([frequent]).max_epochs == 4
