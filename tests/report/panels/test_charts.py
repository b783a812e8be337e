"""Where lines, ticks and marks go."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.report.panels.charts import Line, LineChart, drawn_line_chart, nice_ticks
from sparseml.report.reading import Points

numbers = st.floats(min_value=-1e30, max_value=1e30)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.5, 1]),
        (0.91, 0.97, [0.9, 0.92, 0.94, 0.96, 0.98]),
        (-3, 7, [-5, 0, 5, 10]),
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
        (5, 5, [4.5, 5, 5.5]),
        (0, 3e-20, [0, 1e-20, 2e-20, 3e-20]),
    ],
)
def test_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


@given(numbers, numbers)
def test_ticks_enclose_and_are_few(one: float, other: float) -> None:
    low, high = sorted((one, other))
    ticks = nice_ticks(low, high)
    margin = 1e-6 * (ticks[-1] - ticks[0])
    assert ticks[0] <= low + margin
    assert ticks[-1] >= high - margin
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(ticks)


def chart(*lines: Line, **more: object) -> LineChart:
    return LineChart("key", "Title", "step", lines, **more)  # type: ignore[arg-type]


points = st.lists(
    st.tuples(st.integers(0, 1000).map(float), st.floats(allow_nan=True, allow_infinity=True)),
    max_size=30,
    unique_by=lambda point: point[0],
).map(sorted)


@given(points, points, st.booleans())
def test_everything_lies_within_the_plot(first: Points, second: Points, stepped: bool) -> None:
    drawn = drawn_line_chart(chart(Line("a", first, stepped), Line("b", second, dots=True)))
    shown = [y for _, y in first + second if abs(y) < 1e100]
    if not shown:
        assert drawn is None
        return
    assert drawn is not None
    places = [place for place, _ in drawn["x_ticks"] + drawn["y_ticks"]] + drawn["readout"]["x"]
    for line in drawn["lines"]:
        numbers = line["path"].replace("M", " ").replace("L", " ").replace("H", " ")
        places += [float(number) for number in numbers.replace("V", " ").split()]
    assert all(-0.01 <= place <= 100.01 for place in places)
    assert len(drawn["table"]["rows"]) == len({x for x, _ in first + second})


def test_a_line_and_its_words() -> None:
    drawn = drawn_line_chart(chart(Line("loss", [(0, 1.0), (5, 0.0), (10, 0.5)], dots=True)))
    assert drawn is not None
    assert drawn["lines"][0]["path"] == "M0.0 0.0L50.0 100.0L100.0 50.0"
    assert drawn["lines"][0]["dots"] == "M0.0 0.0h0M50.0 100.0h0M100.0 50.0h0"
    assert drawn["summary"] == "Title over step. loss from 0 to 1, at the end 0.5."
    assert drawn["table"]["heads"] == ["step", "loss"]
    assert drawn["table"]["rows"] == [["0", "1"], ["5", "0"], ["10", "0.5"]]
    assert drawn["readout"]["head"] == ["step 0", "step 5", "step 10"]
    assert drawn["readout"]["lines"] == [
        {"label": "loss", "y": [0.0, 100.0, 50.0], "text": ["1", "0", "0.5"]}
    ]


def test_steps_gaps_and_series_with_points_of_their_own() -> None:
    drawn = drawn_line_chart(
        chart(
            Line("a", [(0, 0.0), (1, math.nan), (2, 1.0), (4, 0.0)]),
            Line("b", [(0, 0.0), (4, 1.0)], stepped=True),
        )
    )
    assert drawn is not None
    assert drawn["lines"][0]["path"] == "M0.0 100.0M50.0 0.0L100.0 100.0"
    assert drawn["lines"][1]["path"] == "M0.0 100.0H100.0V0.0"
    assert drawn["readout"]["lines"][0]["text"] == ["0", "not a number", "1", "0"]
    assert drawn["readout"]["lines"][1]["text"] == ["0", None, None, "1"]


def test_marks_become_a_band_where_there_are_many() -> None:
    line = Line("a", [(0, 0.0), (100, 1.0)])
    few = drawn_line_chart(chart(line, events=[10, 20, 200]))
    many = drawn_line_chart(chart(line, events=range(5, 95)))
    assert few is not None
    assert many is not None
    assert few["events"] == {"marks": [10.0, 20.0], "band": None, "count": 2}
    assert many["events"] == {"marks": [], "band": (5.0, 94.0), "count": 90}


def test_long_series_are_thinned_in_the_table() -> None:
    drawn = drawn_line_chart(chart(Line("a", [(float(x), float(x % 7)) for x in range(5000)])))
    assert drawn is not None
    assert drawn["table"]["thinned"]
    assert len(drawn["table"]["rows"]) <= 61
    assert drawn["table"]["rows"][-1][0] == "4,999"
    assert len(drawn["readout"]["x"]) <= 410


def test_one_point_is_a_chart() -> None:
    drawn = drawn_line_chart(chart(Line("a", [(3, 2.0)], dots=True)))
    assert drawn is not None
    assert drawn["lines"][0]["dots"] == "M50.0 50.0h0"
