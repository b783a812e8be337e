"""Every pruning modifier does what it did when its outcomes were written down.

Masks, names, sparsities asked for and keys of states are compared as they are. Weights are compared
by their norms and by some of their values, to a tolerance, as the kernels of matrix products (MKL,
oneDNN, Numba) add up in another order on another processor. On the machine and with the versions
that wrote the outcomes, ``SPARSEML_GOLDEN_EXACT=1`` compares every byte, by digests.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))
try:
    scenarios = importlib.import_module("scenarios")
finally:
    sys.path.remove(str(FOLDER))

EXACT = os.environ.get("SPARSEML_GOLDEN_EXACT") == "1"
NUMBERS = ("norms", "values", "digest")
CASES = [
    pytest.param(file, scenario, id=f"{file} {scenario.name}".replace(" ", "-"))
    for file, cases in scenarios.SCENARIOS.items()
    for scenario in cases
]

written = cache(scenarios.read)


@pytest.fixture(scope="module", autouse=True)
def single_threaded() -> Iterator[None]:
    with scenarios.single_threaded():
        yield


@pytest.mark.parametrize(("file", "scenario"), CASES)
def test_outcome_is_as_written(file: str, scenario: Any) -> None:
    expected = written(file)[scenarios.key_of(file, scenario)]
    compare(scenarios.outcome_of(scenario), expected, scenario.name)


@pytest.mark.parametrize("file", scenarios.SCENARIOS)
def test_nothing_else_is_written(file: str) -> None:
    assert list(written(file)) == [
        scenarios.key_of(file, scenario) for scenario in scenarios.SCENARIOS[file]
    ]


def compare(found: Any, expected: Any, where: str) -> None:
    """Compare two outcomes; the message of a difference says where it is."""
    assert list(found) == list(expected), where
    # what is decided first: a different mask explains all that follows
    for key in sorted(expected, key=NUMBERS.__contains__):
        place = f"{where}: {key}"
        if key == "digest":
            assert not EXACT or found[key] == expected[key], place
        elif key in ("norms", "values"):
            assert found[key] == pytest.approx(expected[key], rel=1e-4, abs=1e-6), place
        elif key == "applied_sparsity":
            compare_sparsities(found[key], expected[key], place)
        elif key == "sweep":
            assert list(found[key]) == list(expected[key]), place
            for sparsity, outcome in expected[key].items():
                compare(found[key][sparsity], outcome, f"{place} {sparsity}")
        elif key == "momentum":
            compare(found[key], expected[key], place)
        else:
            assert found[key] == expected[key], place


def compare_sparsities(found: Any, expected: Any, where: str) -> None:
    for modifier, entries in expected.items():
        moments = [moment for moment, _ in entries]
        assert [moment for moment, _ in found[modifier]] == moments, where
        for (_, one), (_, other) in zip(found[modifier], entries, strict=True):
            assert type(one) is type(other), where
            assert other is None or one == pytest.approx(other, rel=1e-9), where
