"""Charts as Vega-Lite describes them, each with a table of what it shows.

Colours are those of the page's style sheet, ``var(--s1)`` and the like, so that a chart follows the
page into the dark and onto paper. Names of runs, layers and metrics are data, never a part of an
expression or the name of a field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sparseml.report.formats import number_text
from sparseml.report.reading import Points, decimated

#: More marks than these are shown as one band.
_MOST_EVENTS = 60
_MOST_TABLE_ROWS = 60
_STYLES = 8
_LARGEST = 1e100
_HEIGHT = 230

Spec = dict[str, Any]
Text = Callable[[float], str]

THEME: Spec = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domainColor": "var(--rule)",
        "gridColor": "var(--rule)",
        "tickColor": "var(--rule)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}
"""Vega-Lite's configuration for all charts of a page."""

# the wheel alone scrolls the page
ZOOM: Spec = {
    "name": "zoom",
    "select": {"type": "interval", "zoom": "wheel![event.ctrlKey || event.metaKey]"},
    "bind": "scales",
}
NARROW: Spec = {"name": "narrow", "value": False}
"""What the page sets on a phone."""

WIDE: Spec = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
"""As wide as the page has room for; in rows of any height that is a number."""


TIP: Spec = {"tooltip": {"field": "tip", "type": "nominal"}}
"""What a mark tells under the pointer: the text under ``tip``."""


def names_of(field: str, most: int, on_phones: int, end: int, **axis: Any) -> Spec:
    """Return a channel of names in the order of the data, long ones cut in their middle.

    :param most: letters
    :param on_phones: letters there
    :param end: of these, from the end of a longer name
    """
    limit = f"(narrow ? {on_phones} : {most})"
    cut = f"slice(datum.label, 0, {limit} - {end + 1}) + '…' + slice(datum.label, -{end})"
    short = f"length(datum.label) > {limit} ? {cut} : datum.label"
    plain = {"title": None, "labelLimit": 0, "ticks": False, "domain": False}
    axis = {**plain, "labelExpr": short, **axis}
    return {"field": field, "type": "nominal", "sort": None, "axis": axis}


class Key(NamedTuple):
    """A line of a legend: colour and dashes, or that it is a ``band`` or ``event``."""

    label: str
    style: int = 0
    dash: int = 0
    mark: str = "line"


@dataclass(frozen=True)
class Table:
    """Rows of texts under column heads; ``thinned`` if some are left out."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    thinned: bool = False


@dataclass(frozen=True)
class Panel:
    """A chart and the table of what it shows; without a ``spec`` just the table.

    ``summary`` says in a sentence what there is to see. A chart that is at least so many pixels
    ``wide`` is scrolled sideways where there is less room.
    """

    key: str
    title: str
    table: Table
    spec: Spec | None = None
    summary: str = ""
    legend: Sequence[Key] = ()
    note: str = ""
    wide: int = 0


@dataclass(frozen=True)
class Line:
    """A series; ``stepped`` ones keep their value until the next point, and those that others are
    compared with are a ``reference``, drawn grey and dashed."""

    label: str
    points: Points
    stepped: bool = False
    dots: bool = False
    reference: bool = False


@dataclass(frozen=True)
class LineChart:
    """Several series over one axis.

    ``events`` are positions on the x axis that are marked, ``event_label`` says what they are;
    ``x_range`` is what the axis spans at least. Axes are in per cent where ``percent`` says so.
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
    percent: bool = False


def styles(references: Sequence[bool]) -> list[tuple[int, int]]:
    """Return colour and dashes of every line; the first colour is that of references."""
    colours = _STYLES - 1
    return [
        (0, 1) if reference else (1 + index % colours, index // colours % 3)
        for index, reference in enumerate(references)
    ]


def palette(labels: Sequence[str], looks: Sequence[tuple[int, int]]) -> Spec:
    """Return the channel that gives each label its colour."""
    colours = [f"var(--s{style})" for style, _ in looks]
    return {
        "field": "s",
        "type": "nominal",
        "scale": {"domain": list(labels), "range": colours},
        "legend": None,
    }


DASHES: Spec = {
    "field": "d",
    "type": "ordinal",
    "scale": {"domain": [0, 1, 2], "range": [[1, 0], [6, 4], [2, 4]]},
    "legend": None,
}


def quantity(name: str, title: str | None, percent: bool = False, zero: bool = False) -> Spec:
    """Return a channel for numbers, its axis as far as they reach; one without ``title`` is of the
    upright axis."""
    count: Any = 6 if title is None else {"expr": "ceil(width / 90)"}
    axis: Spec = {"title": title, "labelFlush": False, "tickCount": count}
    axis |= {"format": "~%"} if percent else {}
    return {"field": name, "type": "quantitative", "axis": axis, "scale": {"zero": zero}}


def line_panel(chart: LineChart) -> Panel | None:
    """Return a chart of lines, None if there is not one point in it."""
    lines = [
        (line, [(x, y) for x, y in decimated(line.points) if math.isfinite(x)])
        for line in chart.lines
    ]
    if not any(_drawable(y) for _, points in lines for _, y in points):
        return None
    looks = styles([line.reference for line, _ in lines])
    keys = [Key(line.label, *look) for (line, _), look in zip(lines, looks, strict=True)]
    low, high = _ends(chart, lines)
    events = [event for event in chart.events if low <= event <= high]
    if events:
        mark = "band" if len(events) > _MOST_EVENTS else "event"
        keys.append(Key(f"{chart.event_label} ({len(events)})", mark=mark))
    across = quantity("x", chart.x_label, chart.x_text is not number_text)
    across["scale"] |= {"domain": [low, high], "nice": False, "padding": 5}
    upright = quantity("y", None, chart.percent, chart.from_zero)
    color: Spec = {"color": palette([line.label for line, _ in lines], looks)}
    dot = {"type": "point", "filled": True, "clip": True, "opacity": 1}
    values, dots = _values(lines, looks)
    spec: Spec = {
        **WIDE,
        "height": _HEIGHT,
        "encoding": {"x": across, "y": upright},
        "layer": [
            *_event_layers(events),
            {
                "data": {"values": values},
                "params": [ZOOM],
                "mark": {"type": "line", "clip": True},
                "encoding": {**color, "strokeDash": DASHES},
            },
            *([{"data": {"values": dots}, "mark": dot, "encoding": color}] if dots else []),
            _readout(chart, lines),
        ],
    }
    return Panel(chart.key, chart.title, _table(chart, lines), spec, _summary(chart, lines), keys)


def _drawable(y: float) -> bool:
    return abs(y) < _LARGEST  # so that differences stay finite; false for NaN too


def _ends(chart: LineChart, lines: Sequence[tuple[Line, Points]]) -> tuple[float, float]:
    xs = [*_all_x(lines), *(chart.x_range or ())]
    low, high = min(xs), max(xs)
    return (low, high) if low < high else (low - 1, high + 1)


def _values(
    lines: Sequence[tuple[Line, Points]], looks: Sequence[tuple[int, int]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what lines are drawn through, and where they have dots."""
    values, dots = [], []
    for (line, points), (_, dash) in zip(lines, looks, strict=True):
        before: float | None = None
        for x, y in points:
            height = rounded(y) if _drawable(y) else None
            value = {"x": x, "y": height, "s": line.label}
            if line.stepped and before is not None:
                values.append({**value, "y": before, "d": dash})
            values.append({**value, "d": dash})
            dots += [value] if line.dots and height is not None else []
            before = height
    return values, dots


def rounded(value: float) -> float:
    """Return a number with as many digits as a screen can show."""
    return float(f"{value:.6g}")


def _event_layers(events: Sequence[float]) -> list[Spec]:
    if len(events) > _MOST_EVENTS:
        ends = {"x": min(events), "x2": max(events)}
        mark: Spec = {"type": "rect", "color": "var(--muted)", "opacity": 0.15, "clip": True}
        encoding: Spec = {"x2": {"field": "x2"}, "y": {"value": 0}, "y2": {"value": "height"}}
        return [{"data": {"values": [ends]}, "mark": mark, "encoding": encoding}]
    mark = {"type": "rule", "color": "var(--muted)", "strokeDash": [2, 3], "clip": True}
    values = [{"x": event} for event in events]
    return [{"data": {"values": values}, "mark": mark, "encoding": {"y": None}}] if events else []


def _readout(chart: LineChart, lines: Sequence[tuple[Line, Points]]) -> Spec:
    """Return a rule that follows the pointer, and tells of every line there."""
    found = [(line.label, dict(points)) for line, points in lines]
    values = [
        {
            "x": x,
            "tip": "\n".join(
                [
                    f"{chart.x_label} {chart.x_text(x)}",
                    *(f"{label}: {chart.y_text(ys[x])}" for label, ys in found if x in ys),
                ]
            ),
        }
        for x in _all_x(lines)
    ]
    nearest = {"type": "point", "on": "pointermove", "nearest": True, "encodings": ["x"]}
    seen = {"condition": {"param": "at", "empty": False, "value": 0.7}, "value": 0}
    # what is nearest is found by its cell, whose datum is the mark
    tip = {"value": {"expr": "datum.datum ? datum.datum.tip : datum.tip"}}
    return {
        "data": {"values": values},
        "params": [{"name": "at", "select": {**nearest, "clear": "pointerout"}}],
        "mark": {"type": "rule", "color": "var(--fg)", "clip": True},
        "encoding": {"y": None, "opacity": seen, "tooltip": tip},
    }


def _summary(chart: LineChart, lines: Sequence[tuple[Line, Points]]) -> str:
    said = []
    for line, points in lines:
        values = [y for _, y in points if _drawable(y)]
        if values:
            low, high = chart.y_text(min(values)), chart.y_text(max(values))
            said.append(f"{line.label} from {low} to {high}, at the end {chart.y_text(values[-1])}")
    return f"{chart.title} over {chart.x_label}. {'; '.join(said)}."


def _table(chart: LineChart, lines: Sequence[tuple[Line, Points]]) -> Table:
    xs = _all_x(lines)
    found = [dict(points) for _, points in lines]
    every = -(-len(xs) // _MOST_TABLE_ROWS)
    kept = xs[::every] if (len(xs) - 1) % every == 0 else [*xs[::every], xs[-1]]
    rows = [
        [chart.x_text(x), *(chart.y_text(ys[x]) if x in ys else "" for ys in found)] for x in kept
    ]
    heads = [chart.x_label, *(line.label for line, _ in lines)]
    return Table(heads, rows, every > 1)


def _all_x(lines: Sequence[tuple[Line, Points]]) -> list[float]:
    return sorted({x for _, points in lines for x, _ in points})
