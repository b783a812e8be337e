"""What a page shows of one run."""

from __future__ import annotations

import json
from typing import Any

from sparseml.report.findings import (
    considered_weights,
    headline_metric,
    pruned_sparsity,
    run_findings,
    shared_compressor,
)
from sparseml.report.formats import (
    bytes_text,
    count_text,
    metric_text,
    ms_text,
    percent_text,
    ratio_text,
)
from sparseml.report.panels.bar_panels import bar_groups
from sparseml.report.panels.charts import drawn_line_chart
from sparseml.report.panels.series_panels import line_charts
from sparseml.report.quality import compare_metric
from sparseml.report.reading import Run
from sparseml.report.schema import Variant
from sparseml.report.speed import latency_pairs

__all__ = ["Cell", "run_view", "summary_cells"]

#: A number as text, and what is to be said about it in small print.
Cell = tuple[str, str]


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
        "cards": [
            {"name": name, "value": value, "detail": detail}
            for name, (value, detail) in summary_cells(run).items()
            if value
        ],
        "charts": _drawn(main),
        "others": _drawn(others),
        "bars": bar_groups(run, key),
        "layers": run.result.layers,
        "recipe": run.recipe,
        "config": _facts(run.config),
        "environment": _facts(run.environment),
    }


def _drawn(charts: list[Any]) -> list[dict[str, Any]]:
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
    return percent_text(
        sparsity, 1
    ), f"of {count_text(considered_weights(run.result.layers))} weights"


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
