"""When something starts, repeats and ends, asked of a value."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.optim.schedule import ONE_SHOT, Schedule, epoch_of_step, is_one_shot

GRADUAL = Schedule(start=1.0, end=3.0, frequency=0.5)


class Line:
    """From 0 to 1."""

    def at(self, time: float, start: float, end: float) -> float:
        return min(max((time - start) / (end - start), 0.0), 1.0)


@pytest.mark.parametrize(
    ("schedule", "moment", "reason"),
    [
        (GRADUAL, {"epoch": 0.75}, ""),
        (GRADUAL, {"epoch": 1.0}, "start"),
        (GRADUAL, {"epoch": 7.0}, "start"),
        (GRADUAL, {"epoch": 1.0, "started": True, "last_update": 1.0}, ""),
        (GRADUAL, {"epoch": 1.25, "started": True, "last_update": 1.0}, ""),
        (GRADUAL, {"epoch": 1.5, "started": True, "last_update": 1.0}, "update"),
        (GRADUAL, {"epoch": 1.5, "started": True}, ""),  # an interval has to begin somewhere
        (GRADUAL, {"epoch": 3.0, "started": True, "last_update": 2.9}, "end"),
        (GRADUAL, {"epoch": 9.0, "started": True, "ended": True}, ""),
        (GRADUAL, {"epoch": 9.0, "ended": True}, ""),
        (Schedule(), {"epoch": 0.0}, "start"),
        (Schedule(), {"epoch": 9.0, "started": True}, ""),
        (Schedule(end=2.0), {"epoch": 1.0, "started": True}, ""),
        (Schedule(end=2.0), {"epoch": 2.0, "started": True}, "end"),
        (Schedule(frequency=-1.0), {"epoch": 0.25, "started": True}, "update"),
        (Schedule(start=5.0, also=(2.0,)), {"epoch": 2.1}, "update"),
        (Schedule(start=5.0, also=(2.0,)), {"epoch": 2.2, "last_update": 2.1}, ""),
        (Schedule(start_step=3), {"epoch": 0.5}, ""),
        (Schedule(start_step=3), {"epoch": 0.75}, "start"),
        (Schedule(start_step=3, end_step=5), {"epoch": 1.25, "started": True}, "end"),
    ],
)
def test_what_is_due(schedule: Schedule, moment: dict[str, float], reason: str) -> None:
    assert schedule.due(steps_per_epoch=4, **moment) == reason


def test_one_shot_starts_whatever_is_not_known_yet() -> None:
    assert is_one_shot(ONE_SHOT) and is_one_shot(math.inf) and not is_one_shot(1e9)
    for schedule in (GRADUAL, Schedule(), Schedule(start_step=300, end_step=900)):
        assert schedule.due(ONE_SHOT, 1) == schedule.due(ONE_SHOT, -1) == "start"


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [
        (0.25, [0, 3, 6, 9]),  # counts from the last update, which came late
        (0.5, [0, 5]),
        (-1.0, list(range(10))),
        (2.0, [0]),
        (None, [0]),
    ],
)
def test_updates_count_from_the_last_one(frequency: float | None, expected: list[int]) -> None:
    schedule = Schedule(0.0, -1.0, frequency)
    assert [update.step for update in schedule.updates(steps_per_epoch=10, steps=10)] == expected


def test_updates_say_what_starts_and_ends() -> None:
    assert list(GRADUAL.updates(2, 20)) == [
        (2, 1.0, True, False), (3, 1.5, False, False), (4, 2.0, False, False),
        (5, 2.5, False, False), (6, 3.0, False, True),
    ]  # fmt: skip
    assert list(Schedule(2.0, 2.0).updates(1, 9)) == [(2, 2.0, True, True)]
    assert list(Schedule(2.0, 2.0).updates(1, 2)) == []
    also = Schedule(start=2.0, also=(1.0, 3.5))
    assert list(also.updates(1, 9)) == [
        (1, 1.0, False, False), (2, 2.0, True, False), (4, 4.0, False, False),
    ]  # fmt: skip


@given(
    per_epoch=st.integers(1, 17),
    start=st.integers(0, 20),
    length=st.integers(0, 40),
    every=st.integers(1, 9),
)
def test_steps_never_drift(per_epoch: int, start: int, length: int, every: int) -> None:
    schedule = Schedule(start_step=start, end_step=start + length, update_steps=every)
    expected = sorted({*range(start, start + length, every), start + length})
    for asked in (schedule, schedule.in_epochs(per_epoch)):
        steps = [update.step for update in asked.updates(per_epoch, start + length + 5)]
        assert steps == expected


def test_in_epochs() -> None:
    schedule = Schedule(start_step=6, end=9.0, update_steps=3).in_epochs(4)
    assert (schedule.start, schedule.end, schedule.frequency) == (1.5, 9.0, 0.75)
    assert schedule.in_epochs(4) == schedule
    assert GRADUAL.in_epochs(7) == GRADUAL


def test_target() -> None:
    assert [GRADUAL.target(epoch, Line()) for epoch in (0.0, 1.5, 3.0)] == [0.0, 0.25, 1.0]
    steps = Schedule(start_step=4, end_step=12)
    with pytest.raises(ValueError, match=r"in_epochs\(steps_per_epoch\)"):
        steps.target(1.5, Line())
    assert steps.in_epochs(4).target(1.5, Line()) == 0.25


def test_it_is_a_value() -> None:
    assert Schedule(1.0, 3.0, 0.5) == GRADUAL and hash(GRADUAL) == hash(Schedule(1.0, 3.0, 0.5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        GRADUAL.start = 2.0  # type: ignore[misc]


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_equal_steps_give_equal_floats(step: int, per_epoch: int) -> None:
    epoch = epoch_of_step(step, per_epoch)
    assert round(epoch * per_epoch) == step and epoch_of_step(step + 1, per_epoch) > epoch
