"""A step walks through no more of the package than one can read."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LIMITS = {
    "magnitude, no update": (25, 8),
    "magnitude update": (60, 18),
    "CAP, no update": (25, 8),
    "CAP update": (130, 30),
}
"""The most functions, and the most files that they are in."""


@pytest.fixture(scope="module")
def journeys(benchmark: ModuleType) -> dict[str, Any]:
    """What the script finds, in a process without the tests' own imports and hooks."""
    assert benchmark.__file__ is not None
    command = [sys.executable, benchmark.__file__, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", LIMITS)
def test_a_step_is_short(journeys: dict[str, Any], name: str) -> None:
    functions, files = LIMITS[name]
    found = journeys[name]
    listed = "\n".join(f"{file}: {', '.join(names)}" for file, names in found["list"].items())
    assert found["functions"] <= functions, listed
    assert found["files"] <= files, listed


def test_every_journey_has_a_limit(benchmark: ModuleType) -> None:
    assert set(benchmark.JOURNEYS) == set(LIMITS)


def test_a_step_drives_the_modifiers(journeys: dict[str, Any]) -> None:
    for found in journeys.values():
        assert found["functions"] > found["files"] > 1
        assert found["moves"] >= found["files"] - 1
    assert journeys["CAP update"]["functions"] > journeys["CAP, no update"]["functions"]


FIRST = """
import journey_second


def outer():
    class Local:
        value = inner()

    return [inner() for _ in range(2)], (lambda: journey_second.other(inner))(), Local


def inner():
    return sum(number for number in journey_second.numbers())
"""
SECOND = """
def numbers():
    yield 1
    yield 2


def other(call):
    return Holder().held + call()


class Holder:
    @property
    def held(self):
        return 1
"""


def test_what_counts(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "journey_first.py").write_text(FIRST)
    (tmp_path / "journey_second.py").write_text(SECOND)
    monkeypatch.syspath_prepend(str(tmp_path))
    first = importlib.import_module("journey_first")
    journey = benchmark.Journey(tmp_path)
    before = sys.getprofile()
    with journey.traced():
        first.outer()
    assert sys.getprofile() is before
    first.inner()
    qualified = sys.version_info >= (3, 11)
    assert journey.functions == {
        "journey_first.py": ["outer", "inner"],
        "journey_second.py": ["numbers", "other", "Holder.held" if qualified else "held"],
    }
    # outer, inner → numbers → inner → numbers → inner → numbers, other, held → inner → numbers
    assert journey.moves == 7
