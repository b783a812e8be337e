"""Which dampenings are tried, and which of them is taken."""

from __future__ import annotations

import math

import pytest

from sparseml.pytorch.functional.second_order.dampening import (
    HIGHEST,
    LOWEST,
    best_decade,
    mean_loss,
    try_decades,
)


@pytest.mark.parametrize("valley", range(LOWEST, HIGHEST + 1))
def test_the_lowest_of_a_valley_is_found_with_its_neighbours(valley: int) -> None:
    calls = []

    def judge(decade: int) -> list[list[float]]:
        calls.append(decade)
        return [[abs(decade - valley), abs(decade - valley) + 1.0]]

    (tried,) = try_decades(judge)
    assert best_decade(tried) == valley
    assert len(calls) == len(set(calls)) <= 7
    assert {valley - 1, valley + 1} & set(range(LOWEST, HIGHEST + 1)) <= set(tried)


@pytest.mark.parametrize("valley", [LOWEST, -5, -2, HIGHEST])
def test_near_the_best_few_are_tried(valley: int) -> None:
    (tried,) = try_decades(lambda decade: [[abs(decade - valley)]], near=-4)
    assert best_decade(tried) == valley
    at_an_end = valley in (LOWEST, HIGHEST)
    assert len(tried) == (3 if valley == -4 else abs(valley + 4) + (2 if at_an_end else 3))


def test_each_outcome_has_its_own_valley() -> None:
    tried = try_decades(lambda decade: [[abs(decade + 6)], [abs(decade - 1)], [0.0]])
    assert [best_decade(one) for one in tried] == [-6, 1, HIGHEST]
    assert tried[0].keys() == tried[1].keys() == tried[2].keys()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_loses(bad: float) -> None:
    assert best_decade({-1: [0.1, bad], 0: [5.0, 5.0]}) == 0
    assert best_decade({-1: [0.1, bad], 0: [5.0, 5.0]}, within=2.0) == 0
    assert best_decade({-2: [5.0, 5.0], 1: [0.1, bad]}, within=2.0) == -2
    assert mean_loss([bad, 1.0]) == math.inf


def test_the_largest_of_equals_is_taken() -> None:
    tried = {-3: [1.0, 2.0, 3.0], -1: [1.1, 1.9, 3.1], 1: [2.0, 3.0, 4.0]}
    assert best_decade(tried) == -3
    assert best_decade(tried, within=2.0) == -1, "within the error of the paired difference"
    assert best_decade({-3: [1.0], 0: [1.0]}) == 0
