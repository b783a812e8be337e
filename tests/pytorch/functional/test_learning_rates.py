"""Learning rates as functions of time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparseml.pytorch.functional.learning_rates import (
    cosine_rate,
    cycle_of,
    cyclic_linear_rate,
    decayed_rate,
    linear_rate,
    multi_step_rate,
    step_rate,
    warm_restarts_rate,
    warmup_factor,
)

rates = st.floats(0.0, 1.0)
progress = st.floats(-1.0, 2.0)


@pytest.mark.parametrize("curve", [linear_rate, cosine_rate])
class TestCurves:
    @given(rates, rates)
    def test_ends_are_exact(self, curve, initial, final):
        assert curve(0.0, initial, final) == initial
        assert curve(1.0, initial, final) == final

    @given(progress, rates, rates)
    def test_stays_between_the_ends(self, curve, at, initial, final):
        low, high = sorted((initial, final))
        assert low - 1e-12 <= curve(at, initial, final) <= high + 1e-12

    @given(progress, rates, rates)
    def test_is_its_own_mirror_image(self, curve, at, initial, final):
        forth = curve(at, initial, final)
        assert forth == pytest.approx(curve(1 - at, final, initial), abs=1e-12)


@given(st.floats(0.0, 1.0), rates, rates)
def test_cosine_is_the_published_formula(at, initial, final):
    expected = final + (initial - final) * (1 + math.cos(math.pi * at)) / 2
    assert cosine_rate(at, initial, final) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "total,cycle,expected",
    [
        (6, 3, [1.0, 0.5, 0.0, 1.0, 0.5, 0.0, 1.0]),
        (6, 4, [1.0, 2 / 3, 1 / 3, 0.0, 1.0, 0.0, 1.0]),
        (7, 5, [1.0, 0.75, 0.5, 0.25, 0.0, 1.0, 1.0, 0.0]),
        (3, 1, [1.0, 1.0, 1.0, 1.0]),
    ],
    ids=["whole cycles", "short last cycle", "that begins part way", "cycles of one step"],
)
def test_cyclic_linear(total, cycle, expected):
    found = [cyclic_linear_rate(step, total, cycle, 1.0, 0.0) for step in range(total + 1)]
    assert found == pytest.approx(expected)


def test_cyclic_linear_stays_at_initial_after_the_end():
    assert cyclic_linear_rate(99, 12, 5, 0.1, 0.0) == cyclic_linear_rate(12, 12, 5, 0.1, 0.0)


@given(st.integers(2, 30), st.integers(1, 8), st.integers(0, 7))
def test_cyclic_linear_forgives_rounding_errors(per_epoch, cycles, cycle):
    """A cycle begins at its first step although the step was computed from an epoch."""
    step = min(cycle, cycles) * per_epoch
    noisy = (step / per_epoch + 1e-13) * per_epoch
    assert cyclic_linear_rate(noisy, cycles * per_epoch, per_epoch, 0.3, 0.1) == 0.3


@given(st.floats(0.0, 100.0), st.floats(1.5, 100.0), st.floats(1.5, 40.0))
def test_cyclic_linear_never_leaves_its_range(step, total, cycle):
    assert 0.1 <= cyclic_linear_rate(step, total, cycle, 0.3, 0.1) <= 0.3


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 300))
def test_cycles_are_counted_in_spite_of_rounding_errors(per_epoch, cycle, step):
    noisy = step / per_epoch * per_epoch
    found = cycle_of(noisy, cycle / per_epoch * per_epoch)
    assert found == (step // cycle, pytest.approx(step % cycle, abs=1e-5))


def test_decay_is_smooth_or_at_once_and_has_a_floor():
    at = [0.0, 0.5, 1.0, 1.5, 2.0, 2.9999999, 9.0]
    smooth = [decayed_rate(periods, 0.8, 0.1, 0.25) for periods in at]
    assert smooth == pytest.approx([0.8, 0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    stairs = [decayed_rate(periods, 0.8, 0.01, 0.25, at_once=True) for periods in at]
    assert stairs == pytest.approx([0.8, 0.8, 0.2, 0.2, 0.05, 0.0125, 0.01])


@pytest.mark.parametrize(
    "length,expected",
    [(0.0, [1, 1, 1]), (0.5, [0, 1, 1]), (1.0, [0, 1, 1]), (4.0, [0, 0.25, 0.5, 0.75, 1, 1])],
)
def test_warmup_rises_from_zero(length, expected):
    assert [warmup_factor(step, length) for step in range(len(expected))] == expected


def torch_rates(scheduler_class, steps, **kwargs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = scheduler_class(optimizer, **kwargs)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_step_rate_is_that_of_torch():
    expected = torch_rates(torch.optim.lr_scheduler.StepLR, 20, step_size=6, gamma=0.3)
    assert [step_rate(s, 0.1, 0.3, 6) for s in range(20)] == pytest.approx(expected)


def test_multi_step_rate_is_that_of_torch():
    expected = torch_rates(
        torch.optim.lr_scheduler.MultiStepLR, 20, milestones=[3, 4, 15], gamma=0.3
    )
    assert [multi_step_rate(s, 0.1, 0.3, [3, 4, 15]) for s in range(20)] == pytest.approx(expected)


def test_warm_restarts_rate_is_that_of_torch():
    expected = torch_rates(
        torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, 20, T_0=7, eta_min=0.02
    )
    assert [warm_restarts_rate(s, 0.1, 0.02, 7) for s in range(20)] == pytest.approx(expected)
