from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.optim.schedule import Schedule
from sparseml.pytorch.functional.schedules import (
    CURVES,
    Ramp,
    cosine_fraction,
    is_dense_phase,
    scheduled_sparsity,
)


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("linear", [0.125, 0.2375, 0.425, 0.725]),
        ("cubic", [0.25325, 0.483594, 0.70625, 0.79925]),
        ("inverse_cubic", [0.075883, 0.11858, 0.204725, 0.451881]),
    ],
)
def test_values_on_the_curves(curve, expected):
    found = [scheduled_sparsity(time, 0, 10, 0.05, 0.8, curve) for time in (1, 2.5, 5, 9)]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("curve", CURVES)
def test_the_ends_are_exact(curve):
    def at(time: float) -> float:
        return scheduled_sparsity(time, 2, 5, 0.1, 0.7, curve)

    assert [at(0), at(2), at(5), at(6), at(math.inf)] == [0.1, 0.1, 0.7, 0.7, 0.7]


@given(
    times=st.lists(st.floats(0, 20), min_size=2, max_size=2),
    curve=st.sampled_from(CURVES),
    ends=st.lists(st.floats(0, 1), min_size=2, max_size=2),
)
def test_sparsity_never_falls_and_stays_between_its_ends(times, curve, ends):
    (earlier, later), (initial, final) = sorted(times), sorted(ends)
    a, b = (scheduled_sparsity(t, 3, 12, initial, final, curve) for t in (earlier, later))
    assert initial <= a <= b + 1e-12 <= final + 2e-12


def test_without_a_ramp_the_final_value_comes_at_once():
    assert scheduled_sparsity(0, -1, -1, 0.1, 0.7) == 0.7
    assert scheduled_sparsity(math.inf, -1, -1, 0.1, 0.7) == 0.7
    assert scheduled_sparsity(3, 3, 3, 0.1, 0.7) == 0.7
    # a negative start is the beginning of training
    assert scheduled_sparsity(0, -1, 4, 0.1, 0.7) == 0.1


def test_unknown_curves_are_refused():
    for time in (1, math.inf):
        with pytest.raises(ValueError, match=r"inter_func must be one of .*found 'cubik'"):
            scheduled_sparsity(time, 0, 2, 0.1, 0.7, "cubik")


def test_a_schedule_knows_the_target_of_a_ramp_at_every_update():
    schedule, ramp = Schedule(1.0, 3.0, 0.5), Ramp(0.05, 0.8)
    targets = [schedule.target(update.epoch, ramp) for update in schedule.updates(4, 20)]
    expected = [0.05, 0.483594, 0.70625, 0.788281, 0.8]
    assert targets == pytest.approx(expected, abs=1e-6)
    assert schedule.target(math.inf, ramp) == 0.8
    assert schedule.target(2.0, Ramp(0.0, 0.5, "linear")) == 0.25
    assert ramp == Ramp(0.05, 0.8, "cubic")


def test_phases_alternate_and_the_last_ones_are_sparse():
    def dense(start, end, period):
        return [time for time in range(end + 3) if is_dense_phase(time, start, end, period)]

    assert dense(0, 10, 2) == [0, 1, 4, 5]
    assert dense(-1, 10, 2) == [0, 1, 4, 5]
    assert dense(1, 8, 1) == [0, 1, 3, 5]  # before the start it is dense anyway
    assert dense(0, 9, 3) == [0, 1, 2]
    assert not is_dense_phase(math.inf, 0, 10, 2)
    assert not is_dense_phase(0, 0, 2, 2)


def test_phases_in_steps_do_not_suffer_from_rounding():
    period, end = 3 / 7, 10.0
    for number in range(20):
        assert is_dense_phase(3 * number / 7, 0, end, period) == (number % 2 == 0)


def test_the_cosine_falls_to_nothing():
    assert [cosine_fraction(time, 1, 5, 0.4) for time in (0, 1)] == [0.4, 0.4]
    assert cosine_fraction(2, 1, 5, 0.4) == pytest.approx(0.2 * (1 + math.sqrt(0.5)))
    assert cosine_fraction(3, 1, 5, 0.4) == pytest.approx(0.2)
    assert [cosine_fraction(time, 1, 5, 0.4) for time in (5, 6, math.inf)] == [0, 0, 0]
    assert cosine_fraction(0, -1, 4, 0.4) == 0.4
    assert cosine_fraction(3, 3, 3, 0.4) == 0
