"""Geometry of charts: where lines, bars and ticks go, as fractions that any width can be drawn in.

A chart is drawn as an SVG that stretches with the page, under labels that do not: positions are per
cent of the plot, so nothing has to be computed again for a narrow screen, and no script is needed
to see it. The script only adds a readout under the pointer and for the arrow keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparseml.report.formats import number_text
from sparseml.report.reading import Points, decimated

#: More marks than these are shown as one band.
_MOST_EVENTS = 60
_MOST_TABLE_ROWS = 60
_STYLES = 8
_LARGEST = 1e100
_NEGLIGIBLE = 1e-9

Text = Callable[[float], str]


@dataclass(frozen=True)
class Line:
    """A series; ``stepped`` ones keep their value until the next point, and those that others are
    compared with are a ``reference``, drawn grey and dashed. ``beside`` are more dots."""

    label: str
    points: Points
    stepped: bool = False
    dots: bool = False
    reference: bool = False
    beside: Points = field(default_factory=list)


@dataclass(frozen=True)
class LineChart:
    """Several series over one axis.

    ``events`` are positions on the x axis that are marked, ``event_label`` says what they are;
    ``x_range`` is what the axis spans at least.
    """

    key: str
    title: str
    x_label: str
    lines: Sequence[Line]
    x_text: Text = number_text
    y_text: Text = number_text
    events: Sequence[float] = ()
    event_label: str = ""
    from_zero: bool = False
    x_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bar:
    """A row of a bar chart: ``fill`` per cent of the track, and beside it some numbers.

    ``mark`` is a position that the fill is compared with; ``low`` and ``high`` bound the spread.
    """

    label: str
    fill: float
    texts: Sequence[str]
    mark: float | None = None
    low: float | None = None
    high: float | None = None
    style: int = 0
    tip: str = ""


@dataclass(frozen=True)
class BarGroup:
    """A bar chart, which is a table too: rows under column heads, in parts with titles."""

    key: str
    title: str
    heads: Sequence[str]
    parts: Sequence[tuple[str, Sequence[Bar]]] = field(default_factory=list)
    note: str = ""


def nice_ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return numbers 1, 2 or 5 times a power of ten apart that enclose ``low`` to ``high``."""
    largest = max(abs(low), abs(high))
    if high - low <= max(_NEGLIGIBLE * largest, 1 / _LARGEST):
        margin = 0.1 * largest if largest > 1 / _LARGEST else 1.0
        low, high = low - margin, high + margin
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # without the noise of 3 * 0.1
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def drawn_line_chart(chart: LineChart) -> dict[str, Any] | None:
    """Return all that a template needs to draw a chart, None if there is not one point in it."""
    lines = [
        (line, [(x, y) for x, y in decimated(line.points) if math.isfinite(x)])
        for line in chart.lines
    ]
    ys = [y for line, points in lines for _, y in [*points, *line.beside] if _drawable(y)]
    if not ys:
        return None
    xs = [*_all_x(lines), *(chart.x_range or ())]
    y_ticks = nice_ticks(0.0 if chart.from_zero else min(ys), max(ys))
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 1, x_high + 1
    place = _Places(x_low, x_high, y_ticks[0], y_ticks[-1])
    marks = [place.x(event) for event in chart.events if x_low <= event <= x_high]
    band = (min(marks), max(marks)) if len(marks) > _MOST_EVENTS else None
    x_ticks = [tick for tick in nice_ticks(x_low, x_high, 6) if x_low <= tick <= x_high]
    return {
        **vars(chart),
        "summary": _summary(chart, lines),
        "x_ticks": [(place.x(tick), chart.x_text(tick)) for tick in x_ticks],
        "y_ticks": [(place.y(tick), chart.y_text(tick)) for tick in y_ticks],
        "lines": [
            {"label": line.label, **_look(line, index), **_paths(line, points, place)}
            for index, (line, points) in enumerate(lines)
        ],
        "events": {"marks": [] if band else marks, "band": band, "count": len(marks)},
        **_data(chart, lines, place),
    }


def _drawable(y: float) -> bool:
    return abs(y) < _LARGEST  # so that differences stay finite; false for NaN too


@dataclass(frozen=True)
class _Places:
    """Per cent of the plot, from the left and from the top."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return round(100 * (value - self.x_low) / (self.x_high - self.x_low), 2)

    def y(self, value: float) -> float:
        return round(100 * (self.y_high - value) / (self.y_high - self.y_low), 2)


def _look(line: Line, index: int) -> dict[str, int]:
    """Colour and dashes; the first colour is that of references."""
    if line.reference:
        return {"style": 0, "dash": 1}
    colours = _STYLES - 1
    return {"style": 1 + index % colours, "dash": index // colours % 3}


def _paths(line: Line, points: Points, place: _Places) -> dict[str, str]:
    path, dots, pen_down = [], [], False
    for x, y in points:
        if not _drawable(y):
            pen_down = False
            continue
        to_x, to_y = place.x(x), place.y(y)
        if not pen_down:
            path.append(f"M{to_x} {to_y}")
        else:
            path.append(f"H{to_x}V{to_y}" if line.stepped else f"L{to_x} {to_y}")
        pen_down = True
        dots.append(_dot(to_x, to_y))
    dots += [_dot(place.x(x), place.y(y)) for x, y in line.beside if _drawable(y)]
    return {"path": "".join(path), "dots": "".join(dots) if line.dots else ""}


def _dot(x: float, y: float) -> str:
    return f"M{x} {y}h0"  # a line of no length has round ends


def _summary(chart: LineChart, lines: Sequence[tuple[Line, Points]]) -> str:
    said = []
    for line, points in lines:
        values = [y for _, y in points if _drawable(y)]
        if values:
            low, high = chart.y_text(min(values)), chart.y_text(max(values))
            said.append(f"{line.label} from {low} to {high}, at the end {chart.y_text(values[-1])}")
    return f"{chart.title} over {chart.x_label}. {'; '.join(said)}."


def _data(chart: LineChart, lines: Sequence[tuple[Line, Points]], place: _Places) -> dict[str, Any]:
    """Return a table of the points, and what the script shows at each x: where it is, and the text
    of every line there."""
    xs = _all_x(lines)
    heads = [chart.x_text(x) for x in xs]
    shown = []
    for line, points in lines:
        values = list(map(dict(points).get, xs))
        places = [None if y is None or not _drawable(y) else place.y(y) for y in values]
        texts = [None if y is None else chart.y_text(y) for y in values]
        shown.append({"label": line.label, "y": places, "text": texts})
    every = -(-len(xs) // _MOST_TABLE_ROWS)
    rows = list(zip(heads, *(line["text"] for line in shown), strict=True))
    kept = rows[::every] if (len(rows) - 1) % every == 0 else [*rows[::every], rows[-1]]
    return {
        "table": {
            "heads": [chart.x_label, *(line.label for line, _ in lines)],
            "rows": [[cell or "" for cell in row] for row in kept],
            "thinned": every > 1,
        },
        "readout": {
            "x": [place.x(x) for x in xs],
            "head": [f"{chart.x_label} {head}" for head in heads],
            "lines": shown,
        },
    }


def _all_x(lines: Sequence[tuple[Line, Points]]) -> list[float]:
    return sorted({x for _, points in lines for x, _ in points})
