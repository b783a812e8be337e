"""Charts as they are described to Vega, and the tables beside them."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.report.panels import runtime
from sparseml.report.panels.charts import Line, LineChart, Panel, Table, line_panel
from sparseml.report.panels.runtime import chart_picture, chart_script
from sparseml.report.reading import Points


def chart(*lines: Line, **more: Any) -> LineChart:
    return LineChart("key", "Title", "step", lines, **more)


def drawn(panel: Panel | None, kind: str) -> list[dict[str, Any]]:
    """The data of the layer of one kind of mark."""
    assert panel is not None and panel.spec is not None
    (found,) = [layer for layer in panel.spec["layer"] if layer["mark"]["type"] == kind]
    return list(found["data"]["values"])


points = st.lists(
    st.tuples(st.integers(0, 1000).map(float), st.floats(allow_nan=True, allow_infinity=True)),
    max_size=30,
    unique_by=lambda point: point[0],
).map(sorted)


@given(points, points, st.booleans())
def test_any_numbers_make_a_chart_and_a_table(first: Points, second: Points, stepped: bool) -> None:
    panel = line_panel(chart(Line("a", first, stepped), Line("b", second, dots=True)))
    shown = [y for _, y in first + second if abs(y) < 1e100]
    if not shown:
        assert panel is None
        return
    assert panel is not None
    json.dumps(panel.spec, allow_nan=False)
    heights = [value["y"] for value in drawn(panel, "line")]
    assert {y for y in heights if y is not None} == {float(f"{y:.6g}") for y in shown}
    assert len(panel.table.rows) == len({x for x, _ in first + second})


def test_a_line_and_its_words() -> None:
    panel = line_panel(chart(Line("loss", [(0, 1.0), (5, 0.0), (10, 0.5)], dots=True)))
    assert panel is not None
    assert [(v["x"], v["y"]) for v in drawn(panel, "line")] == [(0, 1), (5, 0), (10, 0.5)]
    assert [(v["x"], v["y"]) for v in drawn(panel, "point")] == [(0, 1), (5, 0), (10, 0.5)]
    assert panel.summary == "Title over step. loss from 0 to 1, at the end 0.5."
    assert panel.table == Table(
        ["step", "loss"], [["0", "1"], ["5", "0"], ["10", "0.5"]], thinned=False
    )
    assert [v["tip"] for v in drawn(panel, "rule")][1] == "step 5\nloss: 0"


def test_steps_gaps_and_series_with_points_of_their_own() -> None:
    panel = line_panel(
        chart(
            Line("a", [(0, 0.0), (1, math.nan), (2, 1.0), (4, 0.0)]),
            Line("b", [(0, 0.0), (4, 1.0)], stepped=True),
        )
    )
    lines: dict[str, Points] = {"a": [], "b": []}
    for value in drawn(panel, "line"):
        lines[value["s"]].append((value["x"], value["y"]))
    assert lines["a"] == [(0, 0), (1, None), (2, 1), (4, 0)]
    assert lines["b"] == [(0, 0), (4, 0), (4, 1)]
    tips = [value["tip"] for value in drawn(panel, "rule")]
    assert tips[1] == "step 1\na: not a number"
    assert tips[3] == "step 4\na: 0\nb: 1"
    assert panel is not None and panel.table.rows[2] == ["2", "1", ""]


def test_marks_become_a_band_where_there_are_many() -> None:
    line = Line("a", [(0, 0.0), (100, 1.0)])
    few = line_panel(chart(line, events=[10, 20, 200], event_label="update"))
    many = line_panel(chart(line, events=range(5, 95), event_label="update"))
    assert few is not None and few.spec is not None and many is not None
    assert few.spec["layer"][0]["data"]["values"] == [{"x": 10}, {"x": 20}]
    assert drawn(many, "rect") == [{"x": 5, "x2": 94}]
    assert [key.label for key in few.legend] == ["a", "update (2)"]
    assert (many.legend[1].label, many.legend[1].mark) == ("update (90)", "band")


def test_long_series_are_thinned() -> None:
    panel = line_panel(chart(Line("a", [(float(x), float(x % 7)) for x in range(5000)])))
    assert panel is not None
    assert panel.table.thinned
    assert len(panel.table.rows) <= 61
    assert panel.table.rows[-1][0] == "4,999"
    assert len(drawn(panel, "line")) <= 410


def test_lines_beyond_the_colours_are_dashed() -> None:
    lines = [Line(str(n), [(0, 1.0)]) for n in range(9)]
    panel = line_panel(chart(Line("dense", [(0, 1.0)], reference=True), *lines))
    assert panel is not None
    looks = [(key.style, key.dash) for key in panel.legend]
    assert looks[0] == (0, 1) and len(set(looks)) == 10
    assert {value["d"] for value in drawn(panel, "line")} == {0, 1}


def test_pictures_are_drawn_in_the_colours_of_the_page() -> None:
    pytest.importorskip("vl_convert")
    panel = line_panel(chart(Line("a", [(3, 2.0), (4, 2.5)], dots=True)))
    assert panel is not None
    picture = chart_picture(panel)
    assert picture == chart_picture(panel)
    assert "var(" not in picture and "#0b62c4" in picture
    assert ">Title<" in picture and ">line: a<" in picture


def test_the_script_is_kept_and_cannot_end_its_element(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    module: Any = ModuleType("vl_convert")
    monkeypatch.setattr(runtime, "version", lambda name: "0")
    module.javascript_bundle = lambda snippet: made.append(snippet) or "a = '</SCRIPT>'"
    monkeypatch.setitem(sys.modules, "vl_convert", module)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    scripts = []
    for _ in range(2):
        chart_script.cache_clear()
        scripts.append(chart_script())
    assert scripts == ["(() => {\na = '<\\/SCRIPT>'\n})();"] * 2
    assert made == ["window.vegaEmbed = vegaEmbed;"]
    (kept,) = (tmp_path / "sparseml").iterdir()
    kept.write_text("cut short")
    chart_script.cache_clear()
    assert chart_script() == scripts[0] and len(made) == 2
    chart_script.cache_clear()
