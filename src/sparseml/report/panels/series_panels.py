"""Charts of what a run logged over its steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sparseml.report.formats import is_fraction_metric, listed, number_text, percent_text
from sparseml.report.panels.charts import Line, LineChart
from sparseml.report.reading import Points, Run

_MOST_OTHER_CHARTS = 12
_MOST_DOTS = 60


_CHARTS = ("Accuracy", "Loss", "Sparsity", "Learning rate")


def line_charts(run: Run, key: str) -> tuple[list[LineChart], list[LineChart]]:
    """Return the charts that every report opens with, and those of whatever else was logged.

    :param key: to tell the ids of this run's charts from those of others on the page
    """
    found: dict[str, list[Line]] = {title: [] for title in ("", *_CHARTS)}
    found["Sparsity"] = _sparsity_lines(run)
    for name, points in run.metrics.series.items():
        line = _line(name, points)
        found[_chart_of(line)].append(line)
    others = [
        _chart(run, f"{key}-other-{number}", line.label, [line])
        for number, line in enumerate(found.pop("")[:_MOST_OTHER_CHARTS])
    ]
    main = [
        _chart(run, f"{key}-{_bare(title)}", title, _each_once(lines))
        for title, lines in found.items()
        if lines
    ]
    return main, others


def _chart_of(line: Line) -> str:
    """Return the title of the chart that a series belongs to; of others the empty string."""
    name = line.label.lower()
    of_sparsity = "sparsity" in name
    if is_fraction_metric(name, *(y for _, y in line.points)) and not of_sparsity:
        return "Accuracy"
    if "loss" in name:
        return "Loss"
    is_rate = "learningrate" in _bare(name) or name.rpartition("/")[2] == "lr"
    return "Sparsity" if of_sparsity else "Learning rate" if is_rate else ""


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "").replace("-", "")


def _line(name: str, points: Points) -> Line:
    """A series; what is logged in per cent becomes fractions, as all else is."""
    if "sparsity" in name.lower() and name.lower().endswith("percent"):
        points = [(x, y / 100) for x, y in points]
    return Line(name, points, dots=len(points) <= _MOST_DOTS)


def _each_once(lines: Sequence[Line]) -> list[Line]:
    """Draw lines that are equal wherever both have points once, under all of their names."""
    kept: list[tuple[Line, list[str]]] = []
    for line in lines:
        same = next((entry for entry in kept if _equal(line, entry[0])), None)
        if same is None:
            kept.append((line, [line.label]))
            continue
        first, names = same
        names.append(line.label.removeprefix(f"{first.label.rpartition('/')[0]}/"))
        points = sorted((dict(line.points) | dict(first.points)).items())
        kept[kept.index(same)] = replace(first, points=points), names
    return [replace(line, label=listed(names)) for line, names in kept]


def _equal(one: Line, other: Line) -> bool:
    """Whether lines that are drawn in the same way are equal in at least half of their points."""
    first, second = dict(one.points), dict(other.points)
    shared = first.keys() & second.keys()
    return (
        (one.reference, one.stepped) == (other.reference, other.stepped)
        and 2 * len(shared) >= min(len(first), len(second)) > 0
        and all(math.isclose(first[x], second[x], rel_tol=1e-6, abs_tol=1e-12) for x in shared)
    )


def _chart(run: Run, key: str, title: str, lines: Sequence[Line]) -> LineChart:
    percent = in_percent([f"{title} {line.label}" for line in lines], lines)
    return LineChart(
        key=key,
        title=title,
        x_label="step",
        lines=lines,
        y_text=percent_tick if percent else number_text,
        percent=percent,
        events=_pruning_steps(run),
        event_label="pruning update",
        from_zero=title in ("Sparsity", "Learning rate"),
        x_range=(0.0, run.metrics.last_step or 0.0),
    )


def in_percent(names: Sequence[str], lines: Sequence[Line]) -> bool:
    """Return whether all lines are fractions, by the names of metrics."""
    values = [y for line in lines for _, y in line.points]
    return all(is_fraction_metric(name, *values) for name in names)


def percent_tick(value: float) -> str:
    """A fraction as per cent, with a decimal only if it takes one."""
    digits = 0 if math.isclose(100 * value, round(100 * value), abs_tol=1e-6) else 1
    return percent_text(value, digits)


def _pruning_steps(run: Run) -> list[float]:
    """When masks were updated: as logged, else as planned up to the last step that is known of."""
    logged, last = run.metrics.update_steps, run.metrics.last_step
    if logged or run.schedule is None or last is None:
        return logged
    planned = {u.step for modifier in run.schedule.modifiers for u in modifier.updates}
    return sorted(float(step) for step in planned if step <= last)


def _sparsity_lines(run: Run) -> list[Line]:
    """What the recipe asks for, modifier by modifier, and what was measured."""
    measured = _measured_sparsity(run)
    lines = [Line("measured", measured, stepped=True, dots=True)] if measured else []
    for modifier in run.schedule.modifiers if run.schedule else []:
        name = f"asked ({modifier.stage})" if modifier.stage else "asked"
        asked = {
            f"{name}, {bound}": _held([(u.step, getattr(u, bound)) for u in modifier.updates], run)
            for bound in ("lowest", "highest")
        }
        lowest, highest = asked.values()
        drawn = {name: highest} if lowest == highest else asked
        lines += [Line(n, points, stepped=True, reference=True) for n, points in drawn.items()]
    return lines


def _held(points: Points, run: Run) -> Points:
    """Keep the last value up to the run's end, so far as that is known."""
    end = run.metrics.last_step
    if not points or end is None:
        return points
    seen = [point for point in points if point[0] <= end] or points[:1]
    return [*seen, (end, seen[-1][1])] if end > seen[-1][0] else seen


def _measured_sparsity(run: Run) -> Points:
    """Sparsity of all pruned parameters together at every logged update."""
    sizes = {layer.name: layer.parameters for layer in run.result.layers}
    zeros: dict[float, float] = {}
    weights: dict[float, int] = {}
    for name, points in run.metrics.parameters.items():
        for step, sparsity in points:
            zeros[step] = zeros.get(step, 0.0) + sparsity * sizes.get(name, 0)
            weights[step] = weights.get(step, 0) + sizes.get(name, 0)
    return [(step, zeros[step] / weights[step]) for step in sorted(zeros) if weights[step]]
