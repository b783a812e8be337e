"""Plain sentences on what stands out among several runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sparseml.report.findings import pruned_sparsity, shared_compressor
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


class _Pruned(NamedTuple):
    """A run with the model that it pruned, and the metric by which that is judged."""

    run: Run
    model: Variant
    metric: str

    @property
    def value(self) -> float:
        return self.model.metrics[self.metric]

    @property
    def zeros(self) -> float:
        return pruned_sparsity(self.run.result.layers) or 0.0


def compare_runs(runs: Sequence[Run]) -> list[Finding]:
    """What stands out: the best, the sparsest and smallest that are still good, the fastest."""
    pruned = [
        _Pruned(run, model, next(iter(model.metrics)))
        for run in runs
        if (model := run.variant("sparse")) and model.metrics
    ]
    return [*_best(pruned), *_beside_dense(pruned), *_fastest(runs), *_shared_notes(runs)]


def _best(pruned: Sequence[_Pruned]) -> Iterator[Finding]:
    found = [one for one in pruned if not math.isnan(one.value)]
    if len(found) < 2 or len({one.metric for one in found}) != 1:
        return
    metric = found[0].metric
    sign = -1 if prefers_low(metric) else 1
    best = max(found, key=lambda one: (sign * one.value, one.zeros))
    named = f"{best.run.name}, {metric_text(metric, best.value)}"
    if best.run.result.layers:
        named += f", with {percent_text(best.zeros, 1)} zeros"
    text = f"Best {metric} of the pruned models: {named}.{_as_good(best, found)}"
    yield Finding("info", text)


def _as_good(best: _Pruned, found: Sequence[_Pruned]) -> str:
    """Name those that the best cannot be told from."""
    others = sorted((one for one in found if one is not best), key=lambda one: -one.zeros)
    compared = [(one, compare_metric(best.metric, one.model, best.model)) for one in others]
    equal = [
        (one.run.name, difference) for one, difference in compared if difference.kind == "same"
    ]
    if equal:
        samples = max(difference.note for _, difference in equal).partition(" (")[0]
        return f" Equal to it{samples}: {listed([name for name, _ in equal])}."
    unknown = any(difference.kind == "info" for _, difference in compared)
    return " On how many samples is not recorded, so others may be as good." if unknown else ""


def _beside_dense(pruned: Sequence[_Pruned]) -> Iterator[Finding]:
    """The most zeros, and the least bytes, that cost less than a percentage point."""
    found = [one for one in pruned if is_fraction_metric(one.metric, one.value)]
    trained = [one for one in found if (dense := one.run.baseline) and dense.trained]
    near = [one for one in trained if is_near(one.metric, one.model, one.run.baseline or Variant())]
    if len(found) < 2:
        return
    if near:
        yield from _sparsest_and_smallest(near)
    elif trained:
        yield Finding("loss", "No pruned model is within a percentage point of its dense model.")
    else:
        known = all((one.run.variant("dense") or Variant()).trained is False for one in found)
        why = (
            "The runs began with weights that were not trained"
            if known
            else "It is not recorded that the weights before pruning were trained"
        )
        yield Finding("info", f"{why}: there is no dense model to measure the pruned ones by.")


def _sparsest_and_smallest(near: Sequence[_Pruned]) -> Iterator[Finding]:
    most = percent_text(max(one.zeros for one in near), 1)
    names = [one.run.name for one in near if percent_text(one.zeros, 1) == most]
    below = f"at less than a point of {near[0].metric} below dense"
    if any(one.zeros for one in near):
        yield Finding("gain", f"Most zeros {below}: {listed(names)}, {most}.")
    if compressor := shared_compressor(*(one.model for one in near)):
        sizes = [(getattr(one.model.storage, compressor), one.run.name) for one in near]
        size, name = min(sizes)
        yield Finding("info", f"Smallest with {compressor} {below}: {name}, {bytes_text(size)}.")


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


def _shared_notes(runs: Sequence[Run]) -> Iterator[Finding]:
    """What several runs say of themselves holds for the comparison: who says it, if not all do."""
    said: dict[str, list[str]] = {}
    for run in runs:
        for note in dict.fromkeys(run.result.notes):
            said.setdefault(note, []).append(run.name)
    for note, names in said.items():
        if len(names) > 1:
            whose = "" if len(names) == len(runs) else f" ({listed(names)})"
            yield Finding("info", f"{note}{whose}")
