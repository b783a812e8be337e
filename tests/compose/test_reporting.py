"""What ``sparseml compose report`` writes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparseml.compose.reporting import write_report

from ..report.conftest import HOSTILE


def report(*names: str) -> dict[str, Any]:
    """A report on configurations of rising size, the second of which is beaten."""
    rows = [
        {
            "name": name, "kept_params": 1000 * (n + 1), "metrics": {"accuracy": accuracy},
            "epochs": 2, "seconds": 3.0, "latency": None, "pareto": n != 1,
        }
        for n, (name, accuracy) in enumerate(zip(names, (0.8, 0.7, 0.9), strict=False))
    ]  # fmt: skip
    return {
        "reuse": {"requests": 8, "distinct": 4, "factor": 2.0},
        "origin": {"accuracy": 0.95},
        "tuning": {"seconds": 12.0, "steps": 100},
        "blocks": [{"block": "a/half", "used_by": ["half"], "before": 0.3, "after": None}],
        "configurations": rows,
    }


def test_a_page_a_picture_and_a_table(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    store: Any = SimpleNamespace(folder=tmp_path)
    files = write_report(store, report("half", "most", HOSTILE))
    assert [file.name for file in files] == ["report.md", "pareto.svg", "report.html"]
    text, picture, page = (file.read_text(encoding="utf-8") for file in files)
    assert text.startswith("8 blocks asked for, 4 distinct, each used 2.00 times; tuned in 12 s")
    assert "| half | 1,000 | 0.8000 | 2 | 3 | - | * |" in text
    assert "| a/half | 1 | 0.3 | - |" in text
    for name in ("half", "most", "line: Pareto front, dashed: origin, cross: beaten"):
        assert f">{name}<" in picture
    assert "<td>1,000</td>" in page and 'class="chart"' in page
    assert "<img src=x" not in page and "<img src=x" not in picture
    before = picture
    write_report(store, report("half", "most", HOSTILE))
    assert files[1].read_text(encoding="utf-8") == before


def test_what_is_written_without_the_extra_and_without_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparseml.report import rendering

    store: Any = SimpleNamespace(folder=tmp_path)
    assert "pareto.svg" not in {file.name for file in write_report(store, report())}
    rendering._environment.cache_clear()
    for name in ("jinja2", "vl_convert"):
        monkeypatch.setitem(sys.modules, name, None)
    assert [file.name for file in write_report(store, report("half"))] == ["report.md"]
