"""Runs that are hit at their worst moments end as if they had not been; a short form."""

from __future__ import annotations

import importlib
import os
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that cannot fork")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_runs_survive_attacks(benchmark: ModuleType, tmp_path: Path) -> None:
    kinds = {"plain loop": 50, "sparse_training": 80}
    words = [FOLDER / "attacks.py", "--no-result", "--kinds", *kinds]
    done = subprocess.run(
        [
            *benchmark.on_small_disk(str(tmp_path)),
            sys.executable,
            *words,
            "--every",
            *map(str, kinds.values()),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line for line in done.stdout.splitlines() if " attacks " in line]
    assert len(table) == 10 and all(" 0 wrong" in line for line in table), done.stdout
    for kind in kinds:
        own = [line for line in table if line.startswith(kind)]
        assert sum("skipped" not in line and " 0 attacks" not in line for line in own) > 1


def test_a_long_run_is_done_in_parts(benchmark: ModuleType, tmp_path: Path) -> None:
    """What is not done is told, and what was wrong can be done again."""
    file, cell, tried = tmp_path / "log.jsonl", ("a run", "damage"), []

    def attack(place: Path, found: Any) -> None:
        tried.append(place)
        found.wrong += ["x.pth differs"] * (len(tried) == 2)

    class Arena:
        def new_place(self) -> Path:
            (tmp_path / str(len(tried))).mkdir()
            for name in ("stdout", "stderr"):
                Path(f"{tmp_path / str(len(tried))}.{name}").touch()
            return tmp_path / str(len(tried))

    cases = [benchmark.Case(f"flip {number}", attack, "x.pth") for number in range(4)]
    log = benchmark.Log(file)
    log.add(cell, planned=len(cases), note="")
    assert benchmark.attack(Arena(), cell, cases[:2], log, float("inf"))
    assert not benchmark.attack(Arena(), cell, cases, benchmark.Log(file), 0.0)
    assert len(tried) == 2 and not [*tmp_path.glob("[0-9]*")]
    found = benchmark.Log(file).results()["a run"]["damage"]
    assert (found["planned"], found["attacks"], found["not_run"]) == (4, 2, 2)
    assert found["wrong"] == ["flip 1: x.pth differs"] and found["files"] == {"x.pth": 2}
    assert benchmark.attack(Arena(), cell, cases, benchmark.Log(file, again=True), float("inf"))
    assert len(tried) == 5
    results = benchmark.Log(file).results()
    assert results["a run"]["damage"]["not_run"] == 0 and not results["a run"]["damage"]["wrong"]
    table = "\n".join(benchmark.page({"plain loop": results["a run"]}))
    assert "| plain loop | damage | 4 | 4 | 0 | 0 |  |" in table
    assert "| plain loop | kill | | not run | | | |" in table and "4 of `x.pth`" in table


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
