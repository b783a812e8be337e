"""Plain sentences: what a run gained, where, and what it did not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sparseml.report.formats import (
    bytes_text,
    count_text,
    difference_text,
    metric_text,
    ms_text,
    percent_text,
    prefers_low,
    ratio_text,
)
from sparseml.report.reading import Run
from sparseml.report.schema import Latency, Layer, Variant

__all__ = [
    "COMPRESSORS",
    "Finding",
    "compare_latency",
    "considered_weights",
    "headline_metric",
    "latency_pairs",
    "pruned_sparsity",
    "run_findings",
]

#: Differences below this are taken for none, however small the spread is.
_SAME = 0.03
_REACHED = 0.005
COMPRESSORS = ("zstd", "gzip")


class Finding(NamedTuple):
    """A sentence, and whether it tells a ``gain``, a ``loss``, that things are the ``same``, or
    just a fact (``info``)."""

    kind: str
    text: str


def headline_metric(run: Run) -> tuple[str, float] | None:
    """The first metric of the model that the run ended with."""
    metrics = run.final.metrics if run.final else {}
    return next(iter(metrics.items()), None)


def _considered(layers: Sequence[Layer]) -> Sequence[Layer]:
    return [layer for layer in layers if layer.asked is not None] or layers


def considered_weights(layers: Sequence[Layer]) -> int:
    """How many weights :func:`pruned_sparsity` is about."""
    return sum(layer.parameters for layer in _considered(layers))


def pruned_sparsity(layers: Sequence[Layer]) -> float | None:
    """The fraction of zeros in the parameters that were asked to be sparse, else in all listed."""
    total = considered_weights(layers)
    return sum(layer.zeros for layer in _considered(layers)) / total if total else None


def run_findings(run: Run) -> list[Finding]:
    """What one run gained against its dense model."""
    return [
        *_status(run),
        *_quality(run),
        *_sparsity(run),
        *_size(run),
        *_operations(run),
        *_speed(run),
        *(Finding("info", note) for note in run.result.notes),
    ]


def _status(run: Run) -> Iterator[Finding]:
    status, error = run.info.status, f" ({run.info.error})" if run.info.error else ""
    if status == "failed":
        yield Finding("loss", f"The run failed{error}: what follows is what it left.")
    elif status == "interrupted":
        yield Finding("loss", "The run was interrupted: what follows is what it left.")
    elif status != "finished":
        yield Finding("info", "The run has not finished, or was killed: no end was recorded.")


def _quality(run: Run) -> Iterator[Finding]:
    headline = headline_metric(run)
    if headline is None:
        yield Finding("info", "No accuracy or other final metric was recorded.")
        return
    name, value = headline
    said = f"{name} is {metric_text(name, value)}"
    dense = run.variant("dense")
    before = dense.metrics.get(name) if dense and run.variant("sparse") else None
    if before is None:
        yield Finding("info", f"{_capital(said)}.")
        return
    better = (before - value) if prefers_low(name) else (value - before)
    kind = "same" if better == 0 or math.isnan(better) else ("gain" if better > 0 else "loss")
    difference = difference_text(name, value, before)
    yield Finding(
        kind, f"{_capital(said)}, {difference} the dense model's {metric_text(name, before)}."
    )


def _sparsity(run: Run) -> Iterator[Finding]:
    layers = run.result.layers
    reached = pruned_sparsity(layers)
    if reached is None:
        return
    asked = [layer for layer in layers if layer.asked is not None]
    total = considered_weights(layers)
    which = "the recipe prunes" if asked else "could be pruned"
    weights = f"the {count_text(total)} weights that {which}"
    if not asked:
        yield Finding("info", f"{percent_text(reached, 1)} of {weights} are zero.")
        return
    wanted = sum((layer.asked or 0.0) * layer.parameters for layer in asked) / total
    met = abs(wanted - reached) <= _REACHED
    kind, tail = ("gain", "as asked") if met else ("loss", f"asked were {percent_text(wanted, 1)}")
    yield Finding(kind, f"{percent_text(reached, 1)} of {weights} are zero, {tail}.")


def _size(run: Run) -> Iterator[Finding]:
    dense, sparse = run.variant("dense"), run.variant("sparse")
    if not (dense and sparse and dense.storage and sparse.storage):
        return
    for compressor in COMPRESSORS:
        before, after = (getattr(v.storage, compressor) for v in (dense, sparse))
        if before and after:
            kind = "gain" if after < 0.97 * before else "same"
            size = (
                f"{bytes_text(after)} compressed with {compressor} instead of {bytes_text(before)}"
            )
            yield Finding(kind, f"The model takes {size}: {_times(before / after, 'smaller')}.")
            return


def _operations(run: Run) -> Iterator[Finding]:
    sparse = run.variant("sparse")
    flops = sparse.flops if sparse else None
    if flops and flops.dense and flops.sparse < flops.dense:
        share = percent_text(1 - flops.sparse / flops.dense, 1)
        yield Finding(
            "info",
            f"{share} of the arithmetic falls on zeros: only kernels that skip zeros save it.",
        )
    dense, shrunk = run.variant("dense"), run.variant("shrunk")
    if dense and shrunk and dense.flops and shrunk.flops and shrunk.flops.dense:
        ratio = dense.flops.dense / shrunk.flops.dense
        yield Finding(
            "gain" if ratio > 1 else "same",
            f"The shrunk model needs {count_text(shrunk.flops.dense)} operations instead of "
            f"{count_text(dense.flops.dense)}: {_times(ratio, 'fewer')}.",
        )


def _speed(run: Run) -> Iterator[Finding]:
    dense = run.variant("dense")
    others = {name: v for name, v in run.result.variants.items() if name != "dense" and v.latency}
    if not dense or not dense.latency or not others:
        yield Finding(
            "info", "Nothing is known about speed: no latency was measured against dense."
        )
        return
    gained = False
    for name, variant in others.items():
        for taken, before in latency_pairs(variant, dense):
            kind, ratio = compare_latency(taken, before)
            gained = gained or kind == "gain"
            yield Finding(kind, _speed_text(name, taken, before, kind, ratio))
    if not gained and run.variant("sparse"):
        yield Finding(
            "info",
            "Nothing got faster: dense kernels multiply by zero as slowly as by any other number. "
            "Scattered zeros save storage and transfer; time only where kernels skip them, or "
            "where whole rows, heads or channels are removed.",
        )


def latency_pairs(variant: Variant, dense: Variant) -> Iterator[tuple[Latency, Latency]]:
    """Measurements of two models under the same conditions."""
    before = {_conditions(latency): latency for latency in dense.latency}
    for latency in variant.latency:
        if _conditions(latency) in before:
            yield latency, before[_conditions(latency)]


def _conditions(latency: Latency) -> tuple[int, str, int | None]:
    return latency.batch_size, latency.device, latency.threads


def compare_latency(taken: Latency, before: Latency) -> tuple[str, float]:
    """Whether a model is faster (``gain``), slower (``loss``) or the ``same``, and how many times.

    It is the same where the ranges between the quartiles overlap, or within 3%.
    """
    ratio = before.median_ms / taken.median_ms if taken.median_ms else math.inf
    if ratio > 1 + _SAME and taken.upper_quartile_ms < before.lower_quartile_ms:
        return "gain", ratio
    if ratio < 1 / (1 + _SAME) and taken.lower_quartile_ms > before.upper_quartile_ms:
        return "loss", ratio
    return "same", ratio


def _speed_text(name: str, taken: Latency, before: Latency, kind: str, ratio: float) -> str:
    threads = f" with {taken.threads} thread{'s' * (taken.threads != 1)}" if taken.threads else ""
    where = f"a batch of {taken.batch_size} on {taken.device}{threads}"
    times = f"{ms_text(taken.median_ms)} against {ms_text(before.median_ms)}"
    if kind == "gain":
        return (
            f"Faster: {where} takes the {name} model {times}, {ratio_text(ratio)} as fast as dense."
        )
    if kind == "loss":
        slower = ratio_text(1 / ratio)
        return f"Slower: {where} takes the {name} model {times}, {slower} as long as dense."
    return f"Not faster: {where} takes the {name} model {times}; that is within the spread."


def _times(ratio: float, comparative: str) -> str:
    return f"{ratio_text(ratio)} {comparative}" if ratio > 1 else f"not {comparative}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
