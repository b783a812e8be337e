from __future__ import annotations

import copy
import inspect
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.optim.schedule import epoch_of_step
from sparseml.sparsification import (
    EpochRangeModifier,
    GMPruningModifier,
    LearningRateModifier,
    SetLearningRateModifier,
)


def pruner(**schedule: Any) -> GMPruningModifier:
    return GMPruningModifier(0.05, 0.8, params="__ALL__", **schedule)


def test_steps_replace_required_epochs_of_a_constructor_that_knows_none() -> None:
    modifier = pruner(start_step=100, end_step=500, update_steps=50)
    assert (modifier.start_step, modifier.end_step, modifier.update_steps) == (100, 500, 50)
    assert modifier.has_steps and not modifier.steps_resolved
    modifier.resolve_steps(200)
    assert modifier.steps_resolved
    schedule = (modifier.start_epoch, modifier.end_epoch, modifier.update_frequency)
    assert schedule == (0.5, 2.5, 0.25)


def test_without_steps_nothing_changes() -> None:
    modifier = EpochRangeModifier(0.0, 3.0)
    assert not modifier.has_steps and modifier.steps_resolved
    modifier.resolve_steps(7)
    assert (modifier.start_epoch, modifier.end_epoch) == (0.0, 3.0)
    assert "step" not in str(modifier)


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_epochs_are_the_ones_of_a_training_loop(step: int, steps_per_epoch: int) -> None:
    modifier = EpochRangeModifier(start_step=step, end_step=step)
    modifier.resolve_steps(steps_per_epoch)
    loop = step // steps_per_epoch + (step % steps_per_epoch) / steps_per_epoch
    assert modifier.start_epoch == modifier.end_epoch == loop
    assert round(loop * steps_per_epoch) == step
    assert epoch_of_step(step + 1, steps_per_epoch) > loop


def test_text_and_identifier_do_not_change_when_resolved() -> None:
    modifier = pruner(start_step=4, end_epoch=30.0, update_steps=2)
    before = str(modifier), modifier.identifier()
    modifier.resolve_steps(3)
    assert (str(modifier), modifier.identifier()) == before
    assert "start_step: 4" in before[0] and "update_steps: 2" in before[0]
    assert "start_epoch" not in before[0] and "update_frequency" not in before[0]
    assert "end_epoch: 30.0" in before[0]


def test_resolving_again_gives_the_same() -> None:
    modifier = pruner(start_step=4, end_step=9, update_steps=2)
    modifier.resolve_steps(3)
    first = modifier.props(only_serializable=False)
    modifier.resolve_steps(3)
    assert modifier.props(only_serializable=False) == first


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_copies_keep_their_steps(remake: Any) -> None:
    modifier = remake(pruner(start_step=4, end_step=9, update_steps=2))
    modifier.resolve_steps(2)
    assert (modifier.start_epoch, modifier.end_epoch) == (2.0, 4.5)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"start_step": -1, "end_step": 4}, "start_step of EpochRangeModifier must be a whole"),
        ({"start_step": 1.5, "end_step": 4}, "found 1.5"),
        ({"start_step": True, "end_step": 4}, "found True"),
        ({"start_step": "3", "end_step": 4}, "found '3'"),
        ({"start_step": 5, "end_step": 4}, "end_step of EpochRangeModifier must be at least"),
        ({"start_step": 5, "start_epoch": 1, "end_epoch": 9}, "takes start_epoch or start_step"),
        ({"start_epoch": 9.0, "end_step": 4}, "end_epoch of EpochRangeModifier must be"),
    ],
)
def test_wrong_schedules(schedule: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpochRangeModifier(**schedule)


def test_a_positional_epoch_counts_as_given() -> None:
    with pytest.raises(ValueError, match="takes start_epoch or start_step, not both"):
        EpochRangeModifier(1.0, 2.0, start_step=3)
    modifier = EpochRangeModifier(1.0, end_step=30)
    modifier.resolve_steps(10)
    assert modifier.end_epoch == 3.0


def test_zero_update_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"update_steps .* at least 1, found 0"):
        pruner(start_step=0, end_step=9, update_steps=0)


def test_fields_that_a_class_lacks_or_ignores() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'update_steps'"):
        EpochRangeModifier(0.0, 1.0, update_steps=3)
    with pytest.raises(ValueError, match="SetLearningRateModifier does not use end_step"):
        SetLearningRateModifier(0.1, end_step=3)
    rate = SetLearningRateModifier(0.1, start_step=3)
    rate.resolve_steps(2)
    assert rate.start_epoch == 1.5


def test_integral_floats_are_steps() -> None:
    # eval(0.5 * 200) in a recipe
    assert EpochRangeModifier(start_step=100.0, end_step=200).start_step == 100


def test_a_schedule_that_does_not_hold_is_found_when_resolved() -> None:
    modifier = EpochRangeModifier(start_step=500, end_epoch=3.0)
    with pytest.raises(ValueError, match=r"start_epoch 5.0 and end_epoch 3.0, with 100 steps"):
        modifier.resolve_steps(100)
    assert not modifier.steps_resolved
    modifier.resolve_steps(200)
    assert modifier.start_epoch == 2.5


@pytest.mark.parametrize("steps_per_epoch", [0, -3, 1.5, None])
def test_steps_per_epoch_must_be_positive(steps_per_epoch: Any) -> None:
    with pytest.raises(ValueError, match="steps_per_epoch must be a positive whole number"):
        EpochRangeModifier(start_step=1, end_step=2).resolve_steps(steps_per_epoch)


def test_unresolved_steps_are_no_schedule_yet() -> None:
    modifier = EpochRangeModifier(start_step=1, end_step=2)
    modifier.check_steps_resolved(math.inf)
    with pytest.raises(RuntimeError, match="EpochRangeModifier is given in steps"):
        modifier.check_steps_resolved(0.0)
    modifier.resolve_steps(2)
    modifier.check_steps_resolved(0.0)


def test_steps_cannot_be_shifted_by_epochs() -> None:
    with pytest.raises(ValueError, match="cannot be shifted by epochs"):
        EpochRangeModifier(start_step=1, end_step=2).advance_epochs(3.0)
    only_frequency = pruner(start_epoch=0.0, end_epoch=4.0, update_steps=3)
    only_frequency.advance_epochs(3.0)
    assert only_frequency.end_epoch == 7.0


def test_checks_of_other_epochs_still_pass() -> None:
    # a milestone must lie between start and end, whatever the steps turn out to be
    modifier = LearningRateModifier("StepLR", {}, 0.1, start_step=100, end_step=900)
    assert modifier.start_epoch == 0.0
    modifier.resolve_steps(100)
    assert (modifier.start_epoch, modifier.end_epoch) == (1.0, 9.0)


def test_signatures_stay_readable() -> None:
    parameters = inspect.signature(EpochRangeModifier).parameters
    assert list(parameters) == ["start_epoch", "end_epoch", "kwargs"]
