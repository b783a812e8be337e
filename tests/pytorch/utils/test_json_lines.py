from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.utils import JSONLinesLogger


def _strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not valid JSON")

    return json.loads(text, parse_constant=refuse)


def _lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text()
    assert text.endswith("\n")
    return [_strict(line) for line in text.splitlines()]


def test_entries(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    logger = JSONLinesLogger(path)
    assert not path.parent.exists()
    assert logger.log_hyperparams({"lr": 0.1, "betas": (0.9, 0.99), "path": tmp_path})
    assert logger.log_scalar("loss", torch.tensor(0.5), 3, 12.5)
    assert logger.log_scalars("acc", {"top1": np.float32(0.25), "top5": 1}, step=4)
    assert logger.log_string("note", "Zürich\nline", 5)
    first, second, third, fourth = _lines(path)
    assert first["values"] == {"lr": 0.1, "betas": [0.9, 0.99], "path": str(tmp_path)}
    assert second == {"time": 12.5, "step": 3, "tag": "loss", "value": 0.5}
    assert third["values"] == {"top1": 0.25, "top5": 1}
    assert fourth["string"] == "Zürich\nline"
    assert logger.path == path


@settings(deadline=None, max_examples=30)
@given(value=st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_is_valid_json_and_reads_back(
    tmp_path_factory: pytest.TempPathFactory, value: float
) -> None:
    path = tmp_path_factory.mktemp("log") / "x.jsonl"
    JSONLinesLogger(path).log_scalars("t", {"a": value, "b": torch.tensor([value])})
    (line,) = _lines(path)
    back = float(line["values"]["a"])
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_lines_are_there_at_once_and_survive_pickling(tmp_path: Path) -> None:
    logger = JSONLinesLogger(tmp_path / "x.jsonl")
    logger.log_scalar("a", 1.0, 0)
    assert len(_lines(logger.path)) == 1
    pickle.loads(pickle.dumps(logger)).log_scalar("a", 2.0, 1)  # noqa: S301
    logger.log_scalar("a", 3.0, 2)
    assert [line["value"] for line in _lines(logger.path)] == [1.0, 2.0, 3.0]


def _write_five(path: Path) -> None:
    logger = JSONLinesLogger(path)
    logger.log_hyperparams({"seed": 1})
    for step in range(5):
        logger.log_scalar("loss", float(step), step)


def test_continuing_keeps_earlier_lines(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    _write_five(path)
    before = path.read_text()
    JSONLinesLogger(path).log_scalar("loss", 9.0, 9)
    assert path.read_text().startswith(before)
    assert len(_lines(path)) == 7


def test_resuming_drops_what_will_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    _write_five(path)
    undisturbed = [line["value"] for line in _lines(path) if "value" in line]
    logger = JSONLinesLogger(path, resume_step=3)
    assert len(_lines(path)) == 6  # nothing happens before the first entry
    for step in (3, 4):
        logger.log_scalar("loss", float(step), step)
    lines = _lines(path)
    assert [line["value"] for line in lines if "value" in line] == undisturbed
    assert lines[0]["tag"] == "hyperparams"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("torn", ['{"time": 1.0, "st', "\x00\x00\x00", '{"a": 1}'])
def test_a_line_cut_short_does_not_spoil_the_next(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "x.jsonl"
    _write_five(path)
    with path.open("a") as file:
        file.write(torn)
    JSONLinesLogger(path).log_scalar("loss", 5.0, 5)
    lines = _lines(path)
    assert lines[-1]["value"] == 5.0
    assert len(lines) == (8 if torn.endswith("}") else 7)
