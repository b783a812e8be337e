"""Plain sentences on what stands out among several runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sparseml.report.finding import Finding
from sparseml.report.findings import COMPRESSORS, headline_metric, pruned_sparsity
from sparseml.report.formats import (
    bytes_text,
    is_fraction_metric,
    metric_text,
    percent_text,
    prefers_low,
    ratio_text,
)
from sparseml.report.reading import Run
from sparseml.report.speed import compare_latency, latency_pairs

__all__ = ["compare_runs"]

_NEAR = 0.01


def compare_runs(runs: Sequence[Run]) -> list[Finding]:
    """What stands out: the best, the sparsest that is still good, the smallest, the fastest."""
    pruned = [run for run in runs if run.variant("sparse")]
    return [*_best(pruned), *_sparsest(pruned), *_smallest(runs), *_fastest(runs)]


def _best(pruned: Sequence[Run]) -> Iterator[Finding]:
    found = {run.name: headline for run in pruned if (headline := headline_metric(run))}
    metrics = {name for name, _ in found.values()}
    values = {run: value for run, (_, value) in found.items() if not math.isnan(value)}
    if len(values) < 2 or len(metrics) != 1:
        return
    metric = metrics.pop()
    choose = min if prefers_low(metric) else max
    best = choose(values, key=lambda run: values[run])
    text = f"Best {metric} of the pruned models: {best}, {metric_text(metric, values[best])}"
    sparsity = next(pruned_sparsity(run.result.layers) for run in pruned if run.name == best)
    with_zeros = f", with {percent_text(sparsity, 1)} zeros" if sparsity is not None else ""
    yield Finding("info", f"{text}{with_zeros}.")


def _sparsest(pruned: Sequence[Run]) -> Iterator[Finding]:
    """The most zeros that cost less than a percentage point."""
    near = []
    for run in pruned:
        headline, dense = headline_metric(run), run.variant("dense")
        sparsity = pruned_sparsity(run.result.layers)
        if headline is None or dense is None or sparsity is None:
            continue
        name, value = headline
        before = dense.metrics.get(name, math.nan)
        if is_fraction_metric(name, value, before) and before - value < _NEAR:
            near.append((sparsity, run.name, name))
    if near and len(pruned) > 1:
        sparsity, run_name, name = max(near)
        yield Finding(
            "gain",
            f"Most zeros at less than a point of {name} below dense: {run_name}, "
            f"{percent_text(sparsity, 1)}.",
        )


def _smallest(runs: Sequence[Run]) -> Iterator[Finding]:
    for compressor in COMPRESSORS:
        sizes = {
            run.name: size
            for run in runs
            if run.final and run.final.storage and (size := getattr(run.final.storage, compressor))
        }
        if len(sizes) > 1:
            name = min(sizes, key=lambda run: sizes[run])
            yield Finding("info", f"Smallest with {compressor}: {name}, {bytes_text(sizes[name])}.")
            return


def _fastest(runs: Sequence[Run]) -> Iterator[Finding]:
    compared = [
        (*compare_latency(taken, before), f"{run.name} ({name})", taken)
        for run in runs
        for name, variant in run.result.variants.items()
        if name != "dense" and (dense := run.variant("dense"))
        for taken, before in latency_pairs(variant, dense)
    ]
    faster = [found for found in compared if found[0] == "gain"]
    if faster:
        _, ratio, name, taken = max(faster, key=lambda found: found[1])
        where = f"a batch of {taken.batch_size} on {taken.device}"
        times = ratio_text(ratio)
        yield Finding("gain", f"Fastest: {name}, {times} as fast as its dense model for {where}.")
    elif compared:
        yield Finding("same", "No model is measurably faster than its dense model.")
