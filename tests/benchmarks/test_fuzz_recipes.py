"""Broken recipes give a working manager or a RecipeError, and the fuzzer would notice if not."""

from __future__ import annotations

import logging
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("resource", reason="a system without resource limits")

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_thousand_broken_recipes(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    # which Accelerate sets: torch then loads a library whenever it is asked for GPUs
    monkeypatch.delenv("PYTORCH_NVML_BASED_CUDA_CHECK", raising=False)
    found = benchmark.fuzz(1000, seed=17)
    assert not found["failures"]
    outcomes = found["outcomes"]
    assert sum(outcomes.values()) == 1000
    assert 50 < outcomes["manager"] < 500
    assert sum(count for name, count in outcomes.items() if "Recipe" in name) > 500


CORPUS = FOLDER / "fuzz_corpus"
PIECES = [
    *(CORPUS / "values.txt").read_text().splitlines(),
    *(CORPUS / "words.txt").read_text().splitlines(),
    *"\n\t :-[]{},'\"!&*#?|>%@`",
    "",
    "\n  ",
]
EXAMPLES = [file.read_text() for file in sorted(CORPUS.glob("*.*")) if file.suffix != ".txt"]
edits = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 30), st.sampled_from(PIECES)), max_size=6
)


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(EXAMPLES), edits)
def test_any_edits_of_a_recipe(
    benchmark: ModuleType, text: str, edits: list[tuple[float, int, str]]
) -> None:
    for where, length, new in edits:
        start = round(where * len(text))
        text = text[:start] + new + text[start + length :]
    try:
        benchmark.load_and_use(benchmark.Case(text.encode(), "", None), Path())
    except benchmark.RecipeError as error:
        assert str(error)


def test_every_change_changes(benchmark: ModuleType) -> None:
    mutations = sys.modules["_recipe_mutations"]
    recipes = benchmark.corpus()
    assert len(recipes) > 30
    for change in mutations.MUTATIONS:
        rng = random.Random(0)
        changed = [change(recipes[0], recipes, rng) for _ in range(20)]
        assert len({recipes[0], *changed}) > 10, change.__name__


@pytest.mark.parametrize(
    ("deed", "noticed"),
    [
        (lambda: exec("1"), "exec"),  # noqa: S102
        (lambda: open("/dev/null").close(), "open"),
        (lambda: __import__("this_is_no_module"), "import"),
        (lambda: [0] * 100_000_000, "MB"),
        (lambda: sum(range(100_000_000)), " s"),
        (lambda: {}["x"], "KeyError"),
        (lambda: logging.getLogger("sparseml").warning("x" * 3000), "log line of 3000 characters"),
        (lambda: None, ""),
    ],
)
def test_misdeeds_are_noticed(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deed: Any, noticed: str
) -> None:
    monkeypatch.setattr(benchmark, "load_and_use", lambda case, folder: deed())
    monkeypatch.setattr(benchmark, "MOST_SECONDS", 0.5)
    case = benchmark.Case(b"", "", None)
    _, wrong, cost = benchmark.run_case(case, tmp_path, benchmark.Watch())
    if noticed == "MB" and not Path("/proc/self/clear_refs").exists():
        pytest.skip("no peaks of memory here")
    assert noticed in wrong and bool(wrong) == bool(noticed)
    assert cost["seconds"] >= 0
