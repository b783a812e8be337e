"""What a page shows of one run, and of several side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sparseml.report.findings import (
    compare_runs,
    considered_weights,
    headline_metric,
    pruned_sparsity,
    run_findings,
    shared_compressor,
)
from sparseml.report.formats import (
    bytes_text,
    capital,
    count_text,
    metric_text,
    ms_text,
    percent_text,
    ratio_text,
)
from sparseml.report.panels.bar_panels import bar_groups, latency_bars, size_bars
from sparseml.report.panels.charts import Line, LineChart, drawn_line_chart
from sparseml.report.panels.series_panels import axis_text, line_charts, percent_tick
from sparseml.report.quality import compare_metric, latency_pairs
from sparseml.report.reading import Points, Run, decimated
from sparseml.report.schema import Latency, Storage, Variant

#: A number as text, and what is to be said about it in small print.
Cell = tuple[str, str]

_MOST_POINTS = 150
_HELD_OUT = ("test", "val", "eval", "dev")


def run_view(run: Run, key: str) -> dict[str, Any]:
    """Return everything that templates show of a run.

    :param key: what the ids of this run on the page begin with
    """
    main, others = line_charts(run, key)
    return {
        "key": key,
        "name": run.name,
        "findings": run_findings(run),
        "problems": run.problems,
        "cards": [(name, *cell) for name, cell in summary_cells(run).items() if cell[0]],
        "charts": _drawn(main),
        "others": _drawn(others),
        "bars": bar_groups(run, key),
        "layers": run.result.layers,
        "recipe": run.recipe,
        "config": _facts(run.config),
        "environment": _facts(run.environment),
    }


def _drawn(charts: Sequence[LineChart]) -> list[dict[str, Any]]:
    return [drawn for chart in charts if (drawn := drawn_line_chart(chart))]


def summary_cells(run: Run) -> dict[str, Cell]:
    """The figures that stand for a run, each with how it compares to the dense model.

    Always the same keys (but for the name of the metric); what is not known is empty.
    """
    final, dense = run.final or Variant(), run.variant("dense")
    before = dense if dense is not None and dense is not run.final else None
    headline = headline_metric(run)
    return {
        (headline[0] if headline else "metric"): _quality(headline, final, run.baseline),
        "zeros": _zeros(run),
        "size": _size(final, before),
        "operations": _operations(final),
        "latency": _latency(final, before),
    }


def _quality(headline: tuple[str, float] | None, final: Variant, baseline: Variant | None) -> Cell:
    if headline is None:
        return "", ""
    name, value = headline
    if baseline is None or name not in baseline.metrics:
        return metric_text(name, value), ""
    difference = compare_metric(name, final, baseline)
    return metric_text(name, value), f"{difference.text} dense{difference.hint}"


def _zeros(run: Run) -> Cell:
    sparsity = pruned_sparsity(run.result.layers)
    if sparsity is None:
        return "", ""
    weights = count_text(considered_weights(run.result.layers))
    return percent_text(sparsity, 1), f"of {weights} weights"


def _size(final: Variant, before: Variant | None) -> Cell:
    compressor = shared_compressor(final)
    if compressor is None:
        return "", ""
    size = getattr(final.storage, compressor)
    was = getattr(before and before.storage, compressor, None)
    smaller = f", {ratio_text(was / size)} smaller" if was and was > size else ""
    return bytes_text(size), f"{compressor}{smaller}"


def _operations(final: Variant) -> Cell:
    if not final.flops:
        return "", ""
    if final.flops.sparse >= final.flops.dense:
        return count_text(final.flops.dense), "per batch"
    return count_text(final.flops.sparse), f"of {count_text(final.flops.dense)}, zeros skipped"


def _latency(final: Variant, before: Variant | None) -> Cell:
    if not final.latency:
        return "", ""
    shown = final.latency[-1]
    was = {id(taken): dense for taken, dense in latency_pairs(final, before or Variant())}
    against = f", dense {ms_text(was[id(shown)].median_ms)}" if id(shown) in was else ""
    hint = ", not settled" if shown.settled is False else ""
    return ms_text(shown.median_ms), f"batch of {shown.batch_size}{against}{hint}"


def _facts(content: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested settings as a flat list of names and texts."""
    facts: list[tuple[str, str]] = []
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value:
            facts += _facts(value, f"{name}.")
        elif value is not None:
            facts.append((name, value if isinstance(value, str) else json.dumps(value)))
    return facts


def comparison_view(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Any]:
    """Return what templates show above the runs themselves.

    :param keys: one for each run, what its ids on the page begin with
    """
    bars = [size_bars(_sizes(runs), "sizes"), latency_bars(_latencies(runs), "latencies")]
    return {
        "findings": compare_runs(runs),
        **_table(runs, keys),
        "charts": _drawn([_tradeoff(runs), *_histories(runs)]),
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
    title, text = f"{capital(name)} over zeros", axis_text([name], lines)
    return LineChart("tradeoff", title, "zeros", lines, percent_tick, text)


def _histories(runs: Sequence[Run]) -> list[LineChart]:
    """The headline metric and the loss over steps, a line for each run that logged it."""
    headlines = [found[0] for run in runs if (found := headline_metric(run))]
    charts: list[LineChart] = []
    for wanted in dict.fromkeys([*headlines, "loss"]):
        logged = [(run, _series(run, wanted)) for run in runs]
        lines = [
            Line(run.name, decimated(points, _MOST_POINTS)) for run, points in logged if points
        ]
        key, title, text = f"history-{len(charts)}", capital(wanted), axis_text([wanted], lines)
        charts.append(LineChart(key, f"{title} over steps", "step", lines, y_text=text))
    return charts


def _series(run: Run, wanted: str) -> Points:
    """The series of a metric; of several one that was measured on data not trained on."""
    names = [n for n in run.metrics.series if n.rpartition("/")[2].lower() == wanted.lower()]
    held_out = [name for name in names if any(word in name.lower() for word in _HELD_OUT)]
    chosen = next(iter(held_out or names), None)
    return run.metrics.series[chosen] if chosen else []
