from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.utils import (
    INTERPOLATION_FUNCS,
    interpolate,
    interpolate_list_linear,
    interpolated_integral,
)

CHECKS = {
    "linear": [0.125, 0.2375, 0.425, 0.725],
    "cubic": [0.25325, 0.483594, 0.70625, 0.79925],
    "inverse_cubic": [0.075883, 0.11858, 0.204725, 0.451881],
}


@pytest.mark.parametrize("function", INTERPOLATION_FUNCS)
def test_check_numbers(function: str) -> None:
    values = [interpolate(x, 0, 10, 0.05, 0.8, function) for x in (1, 2.5, 5, 9)]
    assert values == pytest.approx(CHECKS[function], abs=5e-7)


unit = st.floats(0, 1)


@given(st.sampled_from(INTERPOLATION_FUNCS), st.floats(-5, 15), unit, unit)
def test_ends_are_exact_and_values_lie_between(
    function: str, x: float, low: float, high: float
) -> None:
    value = interpolate(x, 0, 10, low, high, function)
    if x <= 0 or x >= 10:
        assert value == (low if x <= 0 else high)
    assert min(low, high) - 1e-12 <= value <= max(low, high) + 1e-12
    assert isinstance(value, float)


@given(st.sampled_from(INTERPOLATION_FUNCS), st.lists(st.floats(0, 10), min_size=2, max_size=10))
def test_curves_rise(function: str, places: list[float]) -> None:
    values = [interpolate(x, 0, 10, 0.0, 1.0, function) for x in sorted(places)]
    assert values == sorted(values)


@pytest.mark.parametrize("function", INTERPOLATION_FUNCS)
def test_infinite_and_coinciding_ends(function: str) -> None:
    assert interpolate(math.inf, 0, 10, 0.1, 0.9, function) == 0.9
    assert interpolate(3, 3, 3, 0.1, 0.9, function) == 0.9
    assert interpolate(2.9, 3, 3, 0.1, 0.9, function) == 0.1


def test_unknown_curves() -> None:
    with pytest.raises(ValueError, match=r"inter_func must be one of .*, found 'quadratic'"):
        interpolate(1, 0, 2, 0, 1, "quadratic")


def test_between_and_beyond_measurements() -> None:
    points = [(2.0, 20.0), (0.0, 0.0), (1.0, 5.0)]
    assert interpolate_list_linear(points, 1.5) == [(1.5, 12.5)]
    assert interpolate_list_linear(points, [3.0, -1.0, 1.0]) == [
        (-1.0, -5.0), (1.0, 5.0), (3.0, 35.0),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="at least two measurements are needed, found 1"):
        interpolate_list_linear(points[:1], 1.0)


def test_areas() -> None:
    assert interpolated_integral([]) == 0.0
    assert interpolated_integral([(3.0, 7.0)]) == 7.0
    assert interpolated_integral([(2.0, 4.0), (0.0, 0.0), (1.0, 2.0)]) == 4.0
