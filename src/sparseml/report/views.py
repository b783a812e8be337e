"""What a page shows of one run, and of several side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sparseml.report.findings import compare_runs, headline_metric, run_findings
from sparseml.report.formats import capital, number_text
from sparseml.report.next_steps import next_steps
from sparseml.report.panels.charts import Line, LineChart, Panel, line_panel
from sparseml.report.panels.layers import heat_panel, layer_panel
from sparseml.report.panels.measured import Timed, forms_panel, in_order, latency_panels
from sparseml.report.panels.series_panels import in_percent, line_charts, percent_tick
from sparseml.report.panels.tradeoffs import tradeoff_panels
from sparseml.report.quality import latency_pairs
from sparseml.report.reading import Points, Run, decimated
from sparseml.report.schema import Variant
from sparseml.report.summary import cards, comparison_lead, comparison_table, run_sentence

_MOST_POINTS = 150
_HELD_OUT = ("test", "val", "eval", "dev")


def run_view(run: Run, key: str) -> dict[str, Any]:
    """Return everything that templates show of a run.

    :param key: what the ids of this run on the page begin with
    """
    main, others = line_charts(run, key)
    variants = run.result.variants
    measured = [(n, one, None) for n, v in in_order(variants).items() for one in v.latency]
    return {
        "key": key,
        "name": run.name,
        "sentence": run_sentence(run),
        "findings": run_findings(run),
        "problems": run.problems,
        "cards": cards(run),
        "charts": _known(map(line_panel, main)),
        "others": _known(map(line_panel, others)),
        "panels": _known(
            [
                layer_panel(run.result.layers, f"{key}-layers"),
                forms_panel(variants, f"{key}-forms"),
                *latency_panels(measured, f"{key}-latency"),
            ]
        ),
        "steps": next_steps(run),
        "recipe": run.recipe,
        "config": _facts(run.config),
        "environment": _facts(run.environment),
    }


def _known(panels: Iterable[Panel | None]) -> list[Panel]:
    return [panel for panel in panels if panel]


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
    sentence, lead = comparison_lead(runs)
    return {
        "sentence": sentence,
        "cards": cards(lead) if lead else [],
        "lead": lead and lead.name,
        "steps": next_steps(lead) if lead else [],
        "findings": compare_runs(runs),
        **comparison_table(runs, keys),
        "tradeoffs": tradeoff_panels(runs),
        "histories": _known(map(line_panel, _histories(runs))),
        "panels": _known([heat_panel(runs), *latency_panels(_latencies(runs), "latencies")]),
    }


def _latencies(runs: Sequence[Run]) -> list[Timed]:
    """Those of what runs ended with and other forms of it, each with that of the run's dense model,
    if it has another."""
    found: list[Timed] = []
    for run in runs:
        dense = run.variant("dense") or Variant()
        for form, model in run.result.variants.items():
            if model is not run.final and form in ("dense", "sparse"):
                continue
            name = run.name if model is run.final else f"{run.name}, {form}"
            against = [] if model is dense else list(latency_pairs(model, dense))
            known = {id(taken): before for taken, before in against}
            found += [(name, taken, known.get(id(taken))) for taken in model.latency]
    return found


def _histories(runs: Sequence[Run]) -> list[LineChart]:
    """The headline metric and the loss over steps, a line for each run that logged it."""
    headlines = [found[0] for run in runs if (found := headline_metric(run))]
    charts: list[LineChart] = []
    for wanted in dict.fromkeys([*headlines, "loss"]):
        logged = [(run, _series(run, wanted)) for run in runs]
        lines = [
            Line(run.name, decimated(points, _MOST_POINTS)) for run, points in logged if points
        ]
        percent = in_percent([wanted], lines)
        charts.append(
            LineChart(
                f"history-{len(charts)}",
                f"{capital(wanted)} over steps",
                "step",
                lines,
                y_text=percent_tick if percent else number_text,
                percent=percent,
            )
        )
    return charts


def _series(run: Run, wanted: str) -> Points:
    """The series of a metric; of several one that was measured on data not trained on."""
    names = [n for n in run.metrics.series if n.rpartition("/")[2].lower() == wanted.lower()]
    held_out = [name for name in names if any(word in name.lower() for word in _HELD_OUT)]
    chosen = next(iter(held_out or names), None)
    return run.metrics.series[chosen] if chosen else []
