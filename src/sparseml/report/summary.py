"""What stands for a run: a sentence, a few figures, and a row among those of others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from sparseml.report.findings import (
    headline_metric,
    is_broken,
    leading_run,
    shared_compressor,
    smaller_variant,
)
from sparseml.report.formats import (
    bytes_text,
    capital,
    count_text,
    metric_text,
    ms_text,
    percent_text,
    prefers_low,
    ratio_text,
)
from sparseml.report.quality import compare_latency, compare_metric, latency_pairs
from sparseml.report.reading import Run
from sparseml.report.schema import Variant
from sparseml.report.zeros import asked_sparsity, considered_weights, pruned_sparsity

#: A number as text, and what is to be said about it in small print.
Cell = tuple[str, str]

_CARDS = 4
_SPEEDS = {"same": "not faster", "info": "speed could not be measured"}


def run_sentence(run: Run) -> str:
    """Return what a run came to in one sentence; empty if nothing is known."""
    final, dense = run.final or Variant(), run.variant("dense")
    before = dense if dense is not None and dense is not run.final else None
    parts = [_quality_words(run)]
    if (zeros := pruned_sparsity(run.result.layers)) and before:
        parts[0] += f" with {percent_text(zeros, 1)} zeros" if parts[0] else ""
    smaller = smaller_variant(run) or final
    if before and (compressor := shared_compressor(smaller, before)):
        was, size = (getattr(v.storage, compressor) for v in (before, smaller))
        if was > size:
            parts.append(f"{ratio_text(was / size)} smaller with {compressor}")
    parts.append(_speed_words(smaller, before or Variant()))
    said = ", ".join(filter(None, parts))
    return f"{capital(said)}." if said else ""


def _quality_words(run: Run) -> str:
    headline = headline_metric(run)
    if headline is None:
        return ""
    said = f"{headline[0]} {metric_text(*headline)}"
    dense = run.baseline.metrics.get(headline[0]) if run.baseline else None
    return said if dense is None else f"{said} (dense {metric_text(headline[0], dense)})"


def _speed_words(model: Variant, dense: Variant) -> str:
    """Return how fast a model is by the last of its measurements, as in the cards."""
    found = [compare_latency(*pair) for pair in latency_pairs(model, dense)]
    if not found:
        return ""
    kind, ratio = found[-1]
    if kind in _SPEEDS:
        return _SPEEDS[kind]
    return (
        f"{ratio_text(ratio)} as fast"
        if kind == "gain"
        else f"takes {ratio_text(1 / ratio)} as long"
    )


def comparison_lead(runs: Sequence[Run]) -> tuple[str, Run | None]:
    """Return what several runs came to in a sentence, and the run that it is about."""
    groups = len({run.group or run.name for run in runs})
    said = f"{len(runs)} runs in {groups} group{'s' * (groups != 1)}."
    found = leading_run(runs)
    if found is None:
        return said, None
    why, run = found
    return f"{said} {why}: {run.name}. {run_sentence(run)}", run


def cards(run: Run) -> list[tuple[str, str, str]]:
    """Return up to four figures: name, number, small print."""
    found = [(name, *cell) for name, cell in summary_cells(run).items() if cell[0]]
    return [one for one in found if len(found) <= _CARDS or one[0] != "operations"]


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


class Row(NamedTuple):
    """A run in a table: ``best`` are the heads under which none does better, ``told`` what is to be
    said of it."""

    key: str
    name: str
    told: str
    broken: bool
    cells: dict[str, Cell]
    best: list[str]


def comparison_table(runs: Sequence[Run], keys: Sequence[str]) -> dict[str, Any]:
    """Return heads, and rows by group, of all runs.

    :param keys: one for each run, what its ids on the page begin with
    """
    cells = [summary_cells(run) for run in runs]
    metrics = list(dict.fromkeys(next(iter(found)) for found in cells))
    named = [metric for metric in metrics if metric != "metric"]
    given = [*(named or ["metric"]), *list(cells[0])[1:]]
    heads = [head for head in given if any(found.get(head, ("",))[0] for found in cells)]
    best = _best_cells(runs)
    groups: dict[str, list[Row]] = {}
    for run, key, found in zip(runs, keys, cells, strict=True):
        told = "" if run.info.status == "finished" else _status(run)
        row = Row(key, run.name, told, is_broken(run), found, best.get(id(run), []))
        groups.setdefault(run.group, []).append(row)
    return {"heads": heads, "groups": groups, "leveled": len(runs) > 1 and bool(best)}


def _status(run: Run) -> str:
    return run.info.status if run.failed else "not finished"


def _best_cells(runs: Sequence[Run]) -> dict[int, list[str]]:
    """Return under which heads a run is as good as any that was asked for as many zeros.

    What differs by no more than chance is as good; times count only against the run's own dense
    model.
    """
    levels: dict[float, list[Run]] = {}
    for run in runs:
        layers = run.result.layers
        zeros = asked_sparsity(layers) or pruned_sparsity(layers)
        if run.variant("sparse") and not is_broken(run) and zeros is not None:
            levels.setdefault(round(zeros, 2), []).append(run)
    best: dict[int, list[str]] = {}
    for level in levels.values():
        for head, good in _good(level) if len(level) > 1 else ():
            for run in good:
                best.setdefault(id(run), []).append(head)
    return best


def _good(level: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    """Return the best of runs under each head; nothing where all are alike."""
    found: list[tuple[str, list[Run]]] = []
    named = [(run, *headline) for run in level if (headline := headline_metric(run))]
    if len(named) == len(level) and len({name for _, name, _ in named}) == 1:
        name = named[0][1]
        sign = -1 if prefers_low(name) else 1
        top = max(named, key=lambda one: sign * one[2])[0]
        models = {id(run): run.final or Variant() for run in level}
        as_good = [
            run
            for run in level
            if compare_metric(name, models[id(run)], models[id(top)]).kind == "same"
        ]
        found.append((name, as_good))
    finals = [run.final for run in level]
    if compressor := shared_compressor(*finals):
        sizes = [getattr(final and final.storage, compressor) for final in finals]
        small = [r for r, size in zip(level, sizes, strict=True) if size <= 1.01 * min(sizes)]
        found.append(("size", small))
    speeds = {id(run): _speed(run) for run in level}
    fastest = max(speeds.values())
    found.append(("latency", [run for run in level if 1 < fastest <= 1.03 * speeds[id(run)]]))
    return [(head, good) for head, good in found if 0 < len(good) < len(level)]


def _speed(run: Run) -> float:
    """Return how many times as fast as dense a run's model is for certain; else 1."""
    pairs = latency_pairs(run.final or Variant(), run.variant("dense") or Variant())
    found = [compare_latency(*pair) for pair in pairs]
    ratio = found[-1][1] if found and found[-1][0] == "gain" else 1.0
    return ratio if math.isfinite(ratio) else 1.0
