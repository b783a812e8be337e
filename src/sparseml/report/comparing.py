"""Plain sentences on what stands out among several runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sparseml.report.findings import headline_metric, pruned_sparsity, shared_compressor
from sparseml.report.formats import (
    bytes_text,
    is_fraction_metric,
    listed,
    metric_text,
    percent_text,
    prefers_low,
    ratio_text,
)
from sparseml.report.quality import compare_metric, is_near
from sparseml.report.reading import Run
from sparseml.report.schema import Finding, Variant
from sparseml.report.speed import SAME, compare_latency, latency_pairs

__all__ = ["compare_runs"]


def compare_runs(runs: Sequence[Run]) -> list[Finding]:
    """What stands out: the best, the sparsest and smallest that are still good, the fastest."""
    pruned = [run for run in runs if run.variant("sparse")]
    return [*_best(pruned), *_beside_dense(pruned), *_fastest(runs)]


def _best(pruned: Sequence[Run]) -> Iterator[Finding]:
    found = [(run, *headline) for run in pruned if (headline := headline_metric(run))]
    found = [entry for entry in found if not math.isnan(entry[2])]
    if len(found) < 2 or len({name for _, name, _ in found}) != 1:
        return
    metric, sign = found[0][1], -1 if prefers_low(found[0][1]) else 1
    best, _, value = max(found, key=lambda entry: (sign * entry[2], _zeros(entry[0])))
    text = f"Best {metric} of the pruned models: {best.name}, {metric_text(metric, value)}"
    sparsity = pruned_sparsity(best.result.layers)
    with_zeros = f", with {percent_text(sparsity, 1)} zeros" if sparsity is not None else ""
    yield Finding("info", f"{text}{with_zeros}.{_as_good(best, found)}")


def _as_good(best: Run, found: Sequence[tuple[Run, str, float]]) -> str:
    """Name those that the best cannot be told from."""
    metric, model = headline_metric(best), best.variant("sparse") or Variant()
    name, value = metric or ("", 0.0)
    others = [
        (run, compare_metric(name, run.variant("sparse") or Variant(), model))
        for run, _, _ in found
        if run is not best
    ]
    equal = [run for run, difference in others if difference.kind == "same"]
    if equal:
        note = next((d.note for _, d in others if d.kind == "same" and d.note), "")
        samples = note.partition(" (")[0]
        names = [run.name for run in sorted(equal, key=_zeros, reverse=True)]
        return f" Equal to it{samples}: {listed(names)}."
    if is_fraction_metric(name, value) and any(d.kind == "info" for _, d in others):
        return " On how many samples is not recorded, so others may be as good."
    return ""


def _beside_dense(pruned: Sequence[Run]) -> Iterator[Finding]:
    """The most zeros, and the least bytes, that cost less than a percentage point."""
    measured = [
        (run, name, run.baseline)
        for run in pruned
        if (headline := headline_metric(run))
        and (name := headline[0])
        and is_fraction_metric(*headline)
    ]
    trained = [entry for entry in measured if entry[2] is not None and entry[2].trained]
    if len(measured) < 2:
        return
    if not trained:
        initial = all((run.variant("dense") or Variant()).trained is False for run, *_ in measured)
        why = (
            "The runs began with weights that were not trained"
            if initial
            else "It is not recorded that the weights before pruning were trained"
        )
        yield Finding("info", f"{why}: there is no dense model to measure the pruned ones by.")
        return
    near = [
        (run, name)
        for run, name, dense in trained
        if dense and is_near(name, run.variant("sparse") or Variant(), dense)
    ]
    if not near:
        yield Finding("loss", "No pruned model is within a percentage point of its dense model.")
        return
    yield from _sparsest(near)
    yield from _smallest([run for run, _ in near])


def _sparsest(near: Sequence[tuple[Run, str]]) -> Iterator[Finding]:
    most = max(_zeros(run) for run, _ in near)
    names = [run.name for run, _ in near if percent_text(_zeros(run), 1) == percent_text(most, 1)]
    if most > 0:
        metric = near[0][1]
        text = f"Most zeros at less than a point of {metric} below dense: {listed(names)}"
        yield Finding("gain", f"{text}, {percent_text(most, 1)}.")


def _smallest(near: Sequence[Run]) -> Iterator[Finding]:
    if compressor := shared_compressor(*(run.final for run in near)):
        sizes = [(getattr(run.final and run.final.storage, compressor), run.name) for run in near]
        size, name = min(sizes)
        text = f"Smallest with {compressor} at less than a point below dense: {name}"
        yield Finding("info", f"{text}, {bytes_text(size)}.")


def _fastest(runs: Sequence[Run]) -> Iterator[Finding]:
    compared = [
        (*compare_latency(taken, before), f"{run.name} ({name})", taken)
        for run in runs
        for name, variant in run.result.variants.items()
        if name != "dense" and (dense := run.variant("dense"))
        for taken, before in latency_pairs(variant, dense)
    ]
    faster = [found for found in compared if found[0] == "gain"]
    told = [found for found in compared if found[0] != "info"]
    if faster:
        _, ratio, name, taken = max(faster, key=lambda found: (found[1], found[2]))
        where = f"a batch of {taken.batch_size} on {taken.device}"
        close = [n for _, r, n, _ in faster if n != name and r * (1 + SAME) > ratio]
        equal = f" Within {SAME:.0%} of it: {listed(close)}." if close else ""
        text = f"Fastest: {name}, {ratio_text(ratio)} as fast as its dense model for {where}."
        yield Finding("gain", text + equal)
    elif told:
        yield Finding("same", "No model is measurably faster than its dense model.")
    elif compared:
        yield Finding("info", "No model's speed could be measured against its dense model.")


def _zeros(run: Run) -> float:
    return pruned_sparsity(run.result.layers) or 0.0
