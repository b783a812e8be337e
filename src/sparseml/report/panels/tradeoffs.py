"""What zeros and bytes cost: the headline metric of runs over both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from sparseml.report.findings import (
    headline_metric,
    shared_compressor,
    smaller_variant,
)
from sparseml.report.formats import byte_unit, capital, metric_text, number_text, percent_text
from sparseml.report.panels.charts import (
    DASHES,
    TIP,
    WIDE,
    ZOOM,
    Key,
    Panel,
    Spec,
    Table,
    palette,
    quantity,
    rounded,
    styles,
)
from sparseml.report.panels.series_panels import percent_tick
from sparseml.report.quality import standard_margin
from sparseml.report.reading import Run
from sparseml.report.schema import Variant
from sparseml.report.zeros import pruned_sparsity

_HEIGHT = 300


class Mark(NamedTuple):
    """A point; a line joins the means of those with the same ``label`` at every ``level``.

    ``margin`` is how far chance alone moves ``y``. What is ``aside`` is grey, and joined to none.
    """

    label: str
    name: str
    x: float
    y: float
    level: float
    margin: float | None = None
    aside: bool = False
    tip: str = ""


class _Told(NamedTuple):
    """A run with its metric and its zeros."""

    run: Run
    metric: str
    value: float
    zeros: float
    model: Variant

    def mark(self, x: float, text: str) -> Mark:
        margin = standard_margin(self.metric, self.value, self.model.samples)
        about = f" ±{percent_text(margin)}" if margin else ""
        told = f"{self.metric} {metric_text(self.metric, self.value)}{about}"
        tip = "\n".join([self.run.name, told, text])
        group, name = self.run.group or self.run.name, self.run.name
        return Mark(group, name, x, self.value, self.zeros, margin, self.run.failed, tip)


def tradeoff_panels(runs: Sequence[Run]) -> list[Panel]:
    """Return the headline metric over zeros and over size, as far as they are known."""
    found = []
    for run in runs:
        headline, zeros = headline_metric(run), pruned_sparsity(run.result.layers)
        model = run.variant("sparse")
        if headline and zeros is not None and model and math.isfinite(headline[1]):
            found.append(_Told(run, *headline, round(zeros, 4), model))
    if not found:
        return []
    metric = " or ".join(dict.fromkeys(told.metric for told in found))
    dense = {run.baseline.metrics.get(told.metric) for told in found if (run := told.run).baseline}
    value = dense.pop() if len(dense) == 1 else None
    level = None if value is None else ("dense", value)
    marks = [told.mark(told.zeros, f"{percent_text(told.zeros, 1)} zeros") for told in found]
    title = f"{capital(metric)} over"
    panels = [scatter_panel("tradeoff", f"{title} zeros", ("zeros", metric), marks, level, True)]
    models = [smaller_variant(told.run) or told.model for told in found]
    if compressor := shared_compressor(*models):
        sizes = [getattr(model.storage, compressor) for model in models]
        unit, name = byte_unit(max(sizes))
        marks = [
            told.mark(rounded(size / unit), f"{number_text(size / unit)} {name} with {compressor}")
            for told, size in zip(found, sizes, strict=True)
        ]
        axis = f"size in {name}, {compressor}"
        panels.append(scatter_panel("sizes", f"{title} size", (axis, metric), marks, level))
    return panels


def scatter_panel(
    key: str,
    title: str,
    axes: tuple[str, str],
    marks: Sequence[Mark],
    level: tuple[str, float] | None = None,
    percent_x: bool = False,
    aside: str = "failed",
) -> Panel:
    """Return points in lines, over axes that reach as far as the points do.

    :param axes: what they are called
    :param level: to compare with, drawn grey and dashed, and what it is called
    :param aside: what those are called that are put aside
    """
    labels = list(dict.fromkeys(mark.label for mark in marks if not mark.aside))
    looks = styles([False] * len(labels))
    dashes = dict(zip(labels, looks, strict=True))
    color = palette(labels, looks)
    percent = all(metric_text(axes[1], mark.y).endswith("%") for mark in marks)
    keys = [Key(label, *look) for label, look in dashes.items()]
    layers = _margins(marks, color)
    if level:
        rule = {"type": "rule", "color": "var(--s0)", "strokeDash": [6, 4], "strokeWidth": 2}
        encoding = {"x": None, "y": {"field": "y"}}
        layers.append({"data": {"values": [{"y": level[1]}]}, "mark": rule, "encoding": encoding})
        keys.append(Key(level[0], 0, 1))
    if any(mark.aside for mark in marks):
        keys.append(Key(aside, mark="cross"))
    line = {
        "data": {"values": _means(marks, dashes)},
        "params": [ZOOM],
        "mark": {"type": "line", "clip": True},
        "encoding": {"color": color, "strokeDash": DASHES},
    }
    places = {"x": quantity("x", axes[0], percent_x), "y": quantity("y", None, percent)}
    for channel in places.values():
        channel["scale"] |= {"padding": 12}
    spec: Spec = {
        **WIDE,
        "height": _HEIGHT,
        "encoding": places,
        "layer": [*layers, line, _points(marks, color)],
    }
    x_text = percent_tick if percent_x else number_text
    rows = [[m.name, m.label, x_text(m.x), metric_text(axes[1], m.y)] for m in marks]
    table = Table(["run", "method", *axes], rows)
    said = f"{title}: {len(marks)} runs in {len(labels)} lines"
    return Panel(key, title, table, spec, said, keys)


def _points(marks: Sequence[Mark], color: Spec) -> Spec:
    values = [
        {"x": m.x, "y": rounded(m.y), "s": m.label, "tip": m.tip, "aside": m.aside} for m in marks
    ]
    grey = {"test": "datum.aside", "value": "var(--s0)"}
    shape = {"condition": {"test": "datum.aside", "value": "cross"}, "value": "circle"}
    return {
        "data": {"values": values},
        "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1, "clip": True},
        "encoding": {
            "color": {"condition": grey, **color},
            "shape": shape,
            **TIP,
        },
    }


def _margins(marks: Sequence[Mark], color: Spec) -> list[Spec]:
    values = [
        {"x": m.x, "y": rounded(m.y - m.margin), "y2": rounded(m.y + m.margin), "s": m.label}
        for m in marks
        if m.margin and not m.aside
    ]
    mark = {"type": "rule", "opacity": 0.45, "strokeWidth": 1.5, "clip": True}
    encoding = {"y2": {"field": "y2"}, "color": color}
    return [{"data": {"values": values}, "mark": mark, "encoding": encoding}] if values else []


def _means(marks: Sequence[Mark], dashes: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the mean of every label's marks at every level."""
    groups: dict[tuple[str, float], list[Mark]] = {}
    for mark in marks:
        if not mark.aside:
            groups.setdefault((mark.label, mark.level), []).append(mark)
    return [
        {
            "x": fmean(mark.x for mark in group),
            "y": rounded(fmean(mark.y for mark in group)),
            "s": label,
            "d": dashes[label][1],
        }
        for (label, _), group in groups.items()
    ]
