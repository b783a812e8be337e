"""Runs that are killed and resumed end as if they had not been, for every modifier."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that cannot fork")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_modifier_survives_three_kills(tmp_path: Path) -> None:
    # in memory, where there is such a place: syncing to a disk takes most of the time
    place = Path("/dev/shm")
    place = place if place.is_dir() and os.access(place, os.W_OK) else tmp_path
    done = subprocess.run(
        [sys.executable, FOLDER / "kill_resume.py", "--kills", "3", "--no-result"],
        env={**os.environ, "TMPDIR": str(place), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 20
    for line in lines:
        assert "'different': 0" in line and "'kills': 0" not in line


def test_damage_is_damage(benchmark: ModuleType, tmp_path: Path) -> None:
    path, rng = tmp_path / "x", random.Random(0)
    assert benchmark.damage(path, rng) == 0
    for _ in range(20):
        path.write_bytes(bytes(100))
        assert benchmark.damage(path, rng) == 1
        assert path.read_bytes() != bytes(100)


def test_states_are_compared_to_the_last_bit(benchmark: ModuleType) -> None:
    state = {"a": torch.tensor([0.0, float("nan")]), "b": [1, (2.5, float("nan"))], "c": None}
    assert benchmark.same(state, {**state, "a": state["a"].clone()})
    for change in (
        {"a": torch.tensor([-0.0, float("nan")])},
        {"a": state["a"].double()},
        {"b": [1, (2.5, 3.0)]},
        {"c": 0},
        {"d": 1},
    ):
        assert not benchmark.same(state, {**state, **change})
