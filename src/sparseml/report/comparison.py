"""What a page shows of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sparseml.report.comparing import compare_runs
from sparseml.report.findings import headline_metric, pruned_sparsity
from sparseml.report.formats import capital
from sparseml.report.metrics import Points, decimated
from sparseml.report.panels.bar_panels import latency_bars, size_bars
from sparseml.report.panels.charts import Line, LineChart, drawn_line_chart
from sparseml.report.panels.series_panels import axis_text, percent_tick
from sparseml.report.reading import Run
from sparseml.report.schema import Latency, Storage, Variant
from sparseml.report.speed import latency_pairs
from sparseml.report.views import summary_cells

__all__ = ["comparison_view"]

_MOST_POINTS = 150
_HELD_OUT = ("test", "val", "eval", "dev")


def comparison_view(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Any]:
    """Return what templates show above the runs themselves.

    :param keys: one for each run, what its ids on the page begin with
    """
    charts = [_tradeoff(runs), *_histories(runs)]
    bars = [size_bars(_sizes(runs), "sizes"), latency_bars(_latencies(runs), "latencies")]
    return {
        "findings": compare_runs(runs),
        **_table(runs, keys),
        "charts": [drawn for chart in charts if (drawn := drawn_line_chart(chart))],
        "bars": [group for group in bars if group.parts],
    }


def _table(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Any]:
    cells = [summary_cells(run) for run in runs]
    metrics = list(dict.fromkeys(next(iter(found)) for found in cells))
    named = [metric for metric in metrics if metric != "metric"]
    heads = [*(named or ["metric"]), *list(cells[0])[1:]]
    rows = [
        {
            "key": key,
            "name": run.name,
            "told": run.group if run.info.status == "finished" else f"{run.group}, not finished",
            "cells": [found.get(head, ("", "")) for head in heads],
        }
        for run, key, found in zip(runs, keys, cells, strict=True)
    ]
    return {"heads": ["run", *heads], "rows": rows}


def _models(run: Run) -> list[tuple[str, Variant]]:
    """What a run ended with, and other forms of it."""
    return [
        (run.name if variant is run.final else f"{run.name}, {name}", variant)
        for name, variant in run.result.variants.items()
        if variant is run.final or name not in ("dense", "sparse")
    ]


def _sizes(runs: Sequence[Run]) -> list[tuple[str, Storage | None]]:
    """Those of all models and, first, of the dense one if all were made of one of that size."""
    dense = [v.storage for run in runs if run.final is not (v := run.variant("dense")) and v]
    shared = dense[:1] if len(dense) == len(runs) and all(s == dense[0] for s in dense) else []
    models = [model for run in runs for model in _models(run)]
    return [*(("dense", size) for size in shared), *((name, v.storage) for name, v in models)]


def _latencies(runs: Sequence[Run]) -> list[tuple[str, Latency, Latency | None]]:
    """Those of all models, each with that of the run's dense model, if it has another."""
    found = []
    for run in runs:
        dense = run.variant("dense") or Variant()
        for name, model in _models(run):
            against = [] if model is dense else list(latency_pairs(model, dense))
            known = {id(taken): before for taken, before in against}
            found += [(name, taken, known.get(id(taken))) for taken in model.latency]
    return found


def _tradeoff(runs: Sequence[Run]) -> LineChart:
    """The headline metric over sparsity, a line for each group of runs: through the mean of those
    that were pruned to the same sparsity."""
    groups: dict[str, dict[float, list[float]]] = {}
    dense: dict[float, None] = {}
    names: dict[str, None] = {}
    for run in runs:
        headline, sparsity = headline_metric(run), pruned_sparsity(run.result.layers)
        if headline is None or sparsity is None:
            continue
        name, value = headline
        names[name] = None
        if run.variant("sparse"):
            points = groups.setdefault(run.group or run.name, {})
            points.setdefault(round(sparsity, 4), []).append(value)
        if run.baseline and name in run.baseline.metrics:
            dense[run.baseline.metrics[name]] = None
    name = " or ".join(names) or "metric"
    lines = [
        Line(
            group,
            sorted((x, fmean(ys)) for x, ys in points.items()),
            dots=True,
            beside=[(x, y) for x, ys in points.items() if len(ys) > 1 for y in ys],
        )
        for group, points in groups.items()
    ]
    xs = [x for points in groups.values() for x in points]
    if len(dense) == 1 and xs:
        level = next(iter(dense))
        lines.append(Line("dense", [(min(xs), level), (max(xs), level)], reference=True))
    return LineChart(
        key="tradeoff",
        title=f"{capital(name)} over zeros",
        x_label="zeros",
        lines=lines,
        x_text=percent_tick,
        y_text=axis_text([name], lines),
    )


def _histories(runs: Sequence[Run]) -> list[LineChart]:
    """The headline metric and the loss over steps, a line for each run that logged it."""
    headlines = [found[0] for run in runs if (found := headline_metric(run))]
    charts: list[LineChart] = []
    for wanted in dict.fromkeys([*headlines, "loss"]):
        logged = [(run, _series(run, wanted)) for run in runs]
        lines = [
            Line(run.name, decimated(points, _MOST_POINTS)) for run, points in logged if points
        ]
        chart = LineChart(
            key=f"history-{len(charts)}",
            title=f"{capital(wanted)} over steps",
            x_label="step",
            lines=lines,
            y_text=axis_text([wanted], lines),
        )
        charts.append(chart)
    return charts


def _series(run: Run, wanted: str) -> Points:
    """The series of a metric; of several one that was measured on data not trained on."""
    names = [n for n in run.metrics.series if n.rpartition("/")[2].lower() == wanted.lower()]
    held_out = [name for name in names if any(word in name.lower() for word in _HELD_OUT)]
    chosen = next(iter(held_out or names), None)
    return run.metrics.series[chosen] if chosen else []
