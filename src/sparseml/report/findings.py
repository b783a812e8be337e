"""Plain sentences: what a run gained, where, and what it did not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparseml.report.formats import (
    bytes_text,
    capital,
    count_text,
    metric_text,
    ms_text,
    percent_text,
    quartiles_text,
    ratio_text,
    setting_text,
)
from sparseml.report.quality import (
    FEWEST_ROUNDS,
    compare_latency,
    compare_metric,
    latency_pairs,
)
from sparseml.report.reading import Run
from sparseml.report.schema import Finding, Latency, Layer, Variant

__all__ = [
    "considered_weights",
    "headline_metric",
    "pruned_sparsity",
    "run_findings",
    "shared_compressor",
]

_REACHED = 0.005
COMPRESSORS = ("zstd", "gzip")


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
    sparse, dense = run.variant("sparse"), run.variant("dense")
    if sparse is None or dense is None or name not in dense.metrics:
        yield Finding("info", f"{capital(said)}.")
        return
    if dense.trained is False:
        text = f"{capital(said)}. The run began with weights that were not trained: there is no"
        yield Finding("info", f"{text} dense model to measure it by.")
        return
    kind, difference, note, _ = compare_metric(name, sparse, dense)
    if dense.trained is None and kind == "gain":
        kind, note = "info", f"{note}; that one's weights are not recorded as trained"
    before = metric_text(name, dense.metrics[name])
    yield Finding(kind, f"{capital(said)}, {difference} the dense model's {before}{note}.")


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


def shared_compressor(*models: Variant | None) -> str | None:
    """Return the first of the compressors that the sizes of all models are known with."""
    storages = [model.storage if model else None for model in models]
    return next((c for c in COMPRESSORS if all(getattr(s, c, None) for s in storages)), None)


def _size(run: Run) -> Iterator[Finding]:
    models = run.variant("dense"), run.variant("sparse")
    if compressor := shared_compressor(*models):
        before, after = (getattr(model and model.storage, compressor) for model in models)
        kind = "gain" if after < 0.97 * before else "same"
        size = f"{bytes_text(after)} compressed with {compressor} instead of {bytes_text(before)}"
        yield Finding(kind, f"The model takes {size}: {_times(before / after, 'smaller')}.")


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


def _times(ratio: float, comparative: str) -> str:
    return f"{ratio_text(ratio)} {comparative}" if ratio > 1 else f"not {comparative}"


def _speed(run: Run) -> Iterator[Finding]:
    """What got faster than the dense model, where, and what did not."""
    dense = run.variant("dense")
    others = {name: v for name, v in run.result.variants.items() if name != "dense"}
    measured = [
        (name, taken, before)
        for name, variant in others.items()
        for taken, before in latency_pairs(variant, dense or Variant())
    ]
    if others and not measured:
        text = "Nothing is known about speed: no latency was measured against the dense model."
        yield Finding("info", text)
    kinds = set()
    for name, taken, before in measured:
        kind, ratio = compare_latency(taken, before)
        kinds.add(kind)
        yield Finding(kind, _speed_text(name, taken, before, kind, ratio))
    if kinds and not kinds & {"gain", "info"}:
        yield Finding(
            "info",
            "Nothing got faster: dense kernels multiply by zero as slowly as by any other number. "
            "Scattered zeros save storage and transfer; time only where kernels skip them, or "
            "where whole rows, heads or channels are removed.",
        )


def _speed_text(name: str, taken: Latency, before: Latency, kind: str, ratio: float) -> str:
    times = f"{ms_text(taken.median_ms)} against {ms_text(before.median_ms)}"
    said = f"a {setting_text(taken)} takes the {name} model {times}"
    if kind == "gain":
        return f"Faster: {said}, {ratio_text(ratio)} as fast as dense."
    if kind == "loss":
        return f"Slower: {said}, {ratio_text(1 / ratio)} as long as dense."
    if kind == "same":
        return f"Not faster: {said}, a difference of {abs(1 / ratio - 1):.0%}."
    spread = f"half of the rounds took {quartiles_text(taken)} against {quartiles_text(before)} ms"
    if taken.rounds < FEWEST_ROUNDS:
        reason = f"{taken.rounds} rounds are too few to tell"
    elif False in (taken.settled, before.settled):
        reason = f"after {taken.rounds} rounds the times had not settled"
    else:
        reason = "that is too wide a spread to tell"
    return f"Could not be measured: {said}; {spread}, and {reason}."
