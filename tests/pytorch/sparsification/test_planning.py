"""What is planned is what happens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import LayerThinningModifier
from sparseml.pytorch.sparsification.planning import Prunes, asked_sparsities, final_sparsities
from sparseml.pytorch.sparsification.pruning import (
    ACDCPruningModifier,
    ConstantPruningModifier,
    MagnitudePruningModifier,
    PowerpropagationModifier,
)
from sparseml.pytorch.sparsification.training import (
    EpochRangeModifier,
    LearningRateFunctionModifier,
    TrainableParamsModifier,
)

IN_EPOCHS = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 0.5}


def pruner(schedule: dict[str, Any] = IN_EPOCHS, **fields: Any) -> MagnitudePruningModifier:
    sparsities = {"init_sparsity": 0.1, "final_sparsity": 0.7}
    return MagnitudePruningModifier(**{"params": ["weight"], **sparsities, **schedule, **fields})


def updates_in_training(modifier: Any, steps_per_epoch: int, steps: int) -> list[tuple[int, Any]]:
    """The steps at which the modifier updates while a manager drives it, and what it asks for."""
    model = torch.nn.Linear(4, 3)
    seen = []
    original = modifier.update

    def spy(module: Any, optimizer: Any, epoch: float, per_epoch: int) -> None:
        original(module, optimizer, epoch, per_epoch)
        seen.append((round(epoch * per_epoch), getattr(modifier, "applied_sparsity", None)))

    modifier.update = spy
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped = ScheduledModifierManager([modifier]).modify(model, optimizer, steps_per_epoch)
    for _ in range(steps):
        model(torch.ones(2, 4)).sum().backward()
        wrapped.step()
    return seen


@settings(deadline=None, max_examples=25)
@given(
    start=st.floats(0, 2),
    length=st.floats(0.1, 2),
    frequency=st.one_of(st.just(-1.0), st.floats(0.05, 1.5)),
    steps_per_epoch=st.integers(1, 9),
)
def test_planned_updates_are_those_of_training(
    start: float, length: float, frequency: float, steps_per_epoch: int
) -> None:
    def modifier() -> MagnitudePruningModifier:
        return pruner(start_epoch=start, end_epoch=start + length, update_frequency=frequency)

    steps = 4 * steps_per_epoch
    happened = updates_in_training(modifier(), steps_per_epoch, steps)
    asked = modifier()
    planned = list(asked.schedule.updates(steps_per_epoch, steps))
    assert [update.step for update in planned] == [step for step, _ in happened]
    for update, (_, applied) in zip(planned, happened, strict=True):
        assert asked.get_applied_sparsity_for_epoch(update.epoch, steps_per_epoch) == applied


def test_schedules_in_steps() -> None:
    modifier = pruner({"start_step": 3, "end_step": 11, "update_steps": 4})
    unresolved = modifier.schedule
    modifier.resolve_steps(5)
    for schedule in (unresolved, modifier.schedule):
        assert [update.step for update in schedule.updates(5, 100)] == [3, 7, 11]


def test_start_and_end_are_told_apart() -> None:
    planned = list(EpochRangeModifier(1.0, 2.0).schedule.updates(4, 20))
    assert planned == [(4, 1.0, True, False), (8, 2.0, False, True)]
    at_once = TrainableParamsModifier(["weight"], True).schedule.updates(4, 20)
    assert [(u.step, u.starts, u.ends) for u in at_once] == [(0, True, False)]


def test_thinning_also_acts_at_epochs_of_its_own() -> None:
    modifier = LayerThinningModifier({"0.weight": ["1.weight"]}, update_epochs=[1.0, 2.25])
    assert [update.step for update in modifier.schedule.updates(2, 20)] == [0, 2, 5]


def test_asking_leaves_the_modifier_alone() -> None:
    modifier = LearningRateFunctionModifier("linear", 0.1, 0.0, start_epoch=0.0, end_epoch=1.0)
    before = dict(vars(modifier))
    assert len(list(modifier.schedule.updates(4, 20))) == 5
    next(modifier.schedule.updates(4, 20))
    assert vars(modifier) == before
    grouped, model = pruner(params=[], final_sparsity={0.5: ["weight"]}), torch.nn.Linear(4, 3)
    before = dict(vars(grouped))
    assert grouped.selects(model) and grouped.sparsities_at(model, 0.5)
    assert vars(grouped) == before


def test_asking_does_not_detach_a_modifier_in_use() -> None:
    model, modifier = torch.nn.Linear(4, 3), pruner()
    modifier.initialize(model)
    list(modifier.schedule.updates(4, 20))
    final_sparsities(modifier, model)
    assert modifier.initialized and modifier.module_masks is not None


def test_what_is_selected_is_known_without_values() -> None:
    with torch.device("meta"):
        model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
    modifier = pruner(params=["re:.*weight"], mask_type="2:4", final_sparsity=0.5)
    assert [found.name for found in modifier.selects(model)] == ["0.weight", "1.weight"]
    trainable = TrainableParamsModifier(["re:.*bias"], True)
    assert [found.name for found in trainable.selects(model)] == ["0.bias", "1.bias"]


def test_a_modifier_without_parameters_selects_none() -> None:
    assert EpochRangeModifier(0.0, 1.0).selects(torch.nn.Linear(4, 3)) == []


def test_entries_that_may_match_nothing() -> None:
    modifier = TrainableParamsModifier(["other"], True, params_strict=False)
    assert modifier.selects(torch.nn.Linear(4, 3)) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"params": ["wait"]}, "did you mean 'weight'"),
        ({"params": ["weight"], "mask_type": [5, 1]}, "cannot mask weight"),
        ({"params": ["weight"], "mask_type": "2:4"}, "final_sparsity"),
    ],
)
def test_selecting_finds_what_initialising_would(fields: dict[str, Any], message: str) -> None:
    model = torch.nn.Linear(4, 3)
    for look in (MagnitudePruningModifier.selects, MagnitudePruningModifier.initialize):
        with pytest.raises((RuntimeError, ValueError), match=message):
            look(pruner(**fields), model)


def test_entries_of_every_kind_of_modifier() -> None:
    assert EpochRangeModifier(0.0, 1.0).selecting_entries() == []
    assert ConstantPruningModifier("__ALL__").selecting_entries() == ["__ALL__"]
    assert TrainableParamsModifier(["a", "b"], True).selecting_entries() == ["a", "b"]
    assert pruner(params=[]).selecting_entries() == ["__ALL_PRUNABLE__"]
    grouped = pruner(params=[], final_sparsity={0.5: ["a"], 0.7: ["b", "c"]})
    assert grouped.selecting_entries() == ["a", "b", "c"]


def test_who_can_be_asked_for_a_sparsity() -> None:
    for modifier in (pruner(), ConstantPruningModifier("__ALL__")):
        assert isinstance(modifier, Prunes)
    for modifier in (
        EpochRangeModifier(0.0, 1.0),
        PowerpropagationModifier(-1.0, -1.0, "__ALL_PRUNABLE__"),
    ):
        assert not isinstance(modifier, Prunes)


def test_sparsity_of_each_parameter() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
    grouped = pruner(params=[], final_sparsity={0.5: ["1.weight"], 0.75: ["re:.*weight"]})
    found = {selected.name: asked for selected, asked in final_sparsities(grouped, model)}
    assert found == {"1.weight": 0.5, "0.weight": 0.75}
    grouped.apply(model, math.inf)
    assert float((model[0].weight == 0).float().mean()) == 0.75


def test_sparsities_at_any_epoch() -> None:
    model = torch.nn.Linear(8, 4)
    assert pruner().sparsities_at(model, 0.0) == [0.1]
    assert pruner().sparsities_at(model, 0.5) == pytest.approx([0.625])
    assert pruner().sparsities_at(model, math.inf) == asked_sparsities(pruner(), 9.0, 4) == [0.7]
    alternating = ACDCPruningModifier(0.9, 0.0, 10.0, 2, "__ALL__")
    assert alternating.sparsities_at(model, 0.0) == [0.0, 0.0]
    assert alternating.sparsities_at(model, 2.0) == [0.9, 0.9]
    assert ConstantPruningModifier("__ALL__").sparsities_at(model, math.inf) == [None, None]
