"""Series read from logs."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.pytorch.utils import JSONLinesLogger
from sparseml.report.reading import decimated, read_metrics


def test_what_a_logger_writes_is_what_is_read(tmp_path: Path) -> None:
    log = JSONLinesLogger(tmp_path / "metrics.jsonl")
    log.log_hyperparams({"lr": 0.1})
    log.log_scalar("loss", 2.5, step=2)
    log.log_scalar("loss", math.nan, step=3)
    log.log_scalars("test", {"accuracy": 0.5, "top5": 0.75}, step=2)
    log.log_scalar("ParamPruning/fc.weight", 0.25, step=1)
    log.log_scalar("SparsificationPruning/fc/percent", 0.25, step=1)
    log.log_scalar("loss", 1.0)
    log.log_string("note", "text", step=4)
    found = read_metrics(log.path)
    assert found.series.keys() == {"loss", "test/accuracy", "test/top5"}
    assert found.series["loss"][0] == (2, 2.5)
    assert math.isnan(found.series["loss"][1][1])
    assert found.parameters == {"fc.weight": [(1, 0.25)]}
    assert (found.update_steps, found.last_step) == ([1], 3)
    assert (found.lines, found.unreadable) == (8, 0)


def test_lines_are_sorted_and_the_last_entry_of_a_step_counts(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [
        {"tag": "loss", "step": step, "value": value} for step, value in [(2, 1), (1, 5), (2, 3)]
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert read_metrics(file).series == {"loss": [(1, 5), (2, 3)]}


@pytest.mark.parametrize(
    "line",
    [
        '{"tag": "loss", "step": 9, "val',
        "[1, 2]",
        "null",
        '{"step": 1, "value": 2}',
        "\ufffd\x00",
        "[" * 100_000,
    ],
)
def test_malformed_lines_are_counted_and_left_out(tmp_path: Path, line: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(f'{{"tag": "loss", "step": 1, "value": 2}}\n\n{line}')
    found = read_metrics(file)
    assert found.series == {"loss": [(1, 2)]}
    assert (found.lines, found.unreadable) == (2, 1)


@pytest.mark.parametrize(
    "entry",
    [
        {"value": "text"},
        {"value": True},
        {"value": None},
        {"value": [1]},
        {"values": [1]},
        {"values": {"a": {}}},
        {"step": "NaN", "value": 1},
        {"step": None, "value": 1},
        {"value": 10**400},
    ],
)
def test_what_is_no_number_over_steps_is_passed_over(tmp_path: Path, entry: dict) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps({"tag": "loss", "step": 1, **entry}))
    found = read_metrics(file)
    assert (found.series, found.unreadable) == ({}, 0)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'\xff\xfe\x00{"tag"\n{"tag": "loss", "step": 1, "value": 2}\n')
    assert read_metrics(file).series == {"loss": [(1, 2)]}


numbers = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.lists(numbers, max_size=300), st.integers(min_value=4, max_value=80))
def test_decimation_keeps_the_extremes_and_the_order(values: list[float], most: int) -> None:
    points = [(float(step), value) for step, value in enumerate(values)]
    kept = decimated(points, most)
    assert len(kept) <= max(len(points) if len(points) <= most else 0, most + 3)
    assert set(map(str, kept)) <= set(map(str, points))
    assert [step for step, _ in kept] == sorted(step for step, _ in kept)
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        shown = [value for _, value in kept if math.isfinite(value)]
        assert (min(shown), max(shown)) == (min(finite), max(finite))
