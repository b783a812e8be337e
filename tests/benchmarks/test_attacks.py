"""Runs that are hit at their worst moments end as if they had not been; a short form."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that cannot fork")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "every"), [("plain loop", 5), ("sparse_training", 45)])
def test_runs_survive_attacks(kind: str, every: int) -> None:
    words = [FOLDER / "attacks.py", "--no-result", "--kinds", kind, "--every", str(every)]
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line for line in done.stdout.splitlines() if " attacks " in line]
    assert len(table) == 5 and all(" 0 wrong" in line for line in table), done.stdout
    assert sum("skipped" not in line and " 0 attacks" not in line for line in table) > 1


def test_damage_is_damage(benchmark: ModuleType, tmp_path: Path) -> None:
    path, rng = tmp_path / "x.json", random.Random(0)
    for damage in importlib.import_module("_attack_damage").damages(path, 3):
        path.write_bytes(b'{"a": 1}\n' * 20)
        damage.do(path, rng)
        assert not path.exists() or path.read_bytes() != b'{"a": 1}\n' * 20, damage.name


def test_differences_are_found_and_placed(benchmark: ModuleType) -> None:
    runs = importlib.import_module("_attack_outcome")  # beside it
    one = {"run.json": {"a": [1, {"b": 2.0}]}, "x.pth": b"1"}
    assert runs.differences(one, one) == []
    other = {"run.json": {"a": [1, {"b": 3.0}]}, "y.part": None}
    found = runs.differences(other, one)
    assert found == ["no x.pth", "run.json['a'][1]['b'] is 3.0, not 2.0", "also y.part"]
    assert runs.differences({**one, "more.pth": b""}, one, more=True) == []
