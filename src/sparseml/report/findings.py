"""Plain sentences: what a run gained, where, and what it did not; what stands out among several."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sparseml.report.formats import (
    bytes_text,
    capital,
    count_text,
    is_fraction_metric,
    listed,
    metric_text,
    ms_text,
    percent_text,
    prefers_low,
    quartiles_text,
    ratio_text,
    setting_text,
)
from sparseml.report.quality import (
    FEWEST_ROUNDS,
    SAME,
    compare_latency,
    compare_metric,
    is_near,
    latency_pairs,
)
from sparseml.report.reading import Run
from sparseml.report.schema import Finding, Latency, Variant
from sparseml.report.zeros import asked_sparsity, considered_weights, pruned_sparsity

_REACHED = 0.005
COMPRESSORS = ("zstd", "gzip")


def headline_metric(run: Run) -> tuple[str, float] | None:
    """The first metric of the model that the run ended with."""
    metrics = run.final.metrics if run.final else {}
    return next(iter(metrics.items()), None)


def is_broken(run: Run) -> bool:
    """Whether a run failed, or kept less than half of its dense model's accuracy or the like."""
    if run.failed:
        return True
    name, value = headline_metric(run) or ("", 0.0)
    before = run.baseline.metrics.get(name, 0.0) if run.baseline else 0.0
    lost = is_fraction_metric(name, value, before) and value < before / 2
    return bool(name) and (lost or not math.isfinite(value))


def run_findings(run: Run) -> list[Finding]:
    """What one run gained against its dense model."""
    return [
        *_status(run),
        *_quality(run),
        *_sparsity(run),
        *_size(run),
        *_shrunk(run),
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
    total, wanted = considered_weights(layers), asked_sparsity(layers)
    which = "could be pruned" if wanted is None else "the recipe prunes"
    weights = f"the {count_text(total)} weights that {which}"
    if wanted is None:
        yield Finding("info", f"{percent_text(reached, 1)} of {weights} are zero.")
        return
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


def smaller_variant(run: Run) -> Variant | None:
    """The model that lost whole units: the shrunk one, or the run's own where it did so itself."""
    dense, own = run.variant("dense"), run.variant("sparse")
    if shrunk := run.variant("shrunk"):
        return shrunk
    fewer = dense and own and (own.parameters or math.inf) < (dense.parameters or 0)
    return own if fewer else None


def _shrunk(run: Run) -> Iterator[Finding]:
    """What is left when whole units are removed, and what can be done with it."""
    dense, shrunk = run.variant("dense"), smaller_variant(run)
    removed = (
        "Whole units were removed"
        if shrunk is run.variant("sparse")
        else ("With what is zero removed")
    )
    if dense and shrunk and dense.parameters and shrunk.parameters:
        kind = "gain" if shrunk.parameters < dense.parameters else "same"
        what = f" ({shrunk.description})" if shrunk.description else ""
        left = f"{count_text(shrunk.parameters)} of {count_text(dense.parameters)} parameters"
        yield Finding(kind, f"{removed}, {left} are left{what}.")
    if dense and shrunk and dense.storage and shrunk.storage:
        before, after = dense.storage.dense, shrunk.storage.dense
        ratio = _times(before / after, "smaller")
        text = (
            f"The shrunk model takes {bytes_text(after)} instead of {bytes_text(before)}: {ratio}."
        )
        yield Finding("gain" if after < before else "same", text)


def _operations(run: Run) -> Iterator[Finding]:
    sparse = run.variant("sparse")
    flops = sparse.flops if sparse else None
    if flops and flops.dense and flops.sparse < flops.dense:
        share = percent_text(1 - flops.sparse / flops.dense, 1)
        yield Finding(
            "info",
            f"{share} of the arithmetic falls on zeros: only kernels that skip zeros save it.",
        )
    dense, shrunk = run.variant("dense"), smaller_variant(run)
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


def _pruned(runs: Sequence[Run]) -> list[_Pruned]:
    return [
        _Pruned(run, model, next(iter(model.metrics)))
        for run in runs
        if (model := run.variant("sparse")) and model.metrics
    ]


def compare_runs(runs: Sequence[Run]) -> list[Finding]:
    """What stands out: the best, the sparsest and smallest that are still good, the fastest."""
    pruned = _pruned(runs)
    return [*_best(pruned), *_beside_dense(pruned), *_fastest(runs), *_shared_notes(runs)]


def leading_run(runs: Sequence[Run]) -> tuple[str, Run] | None:
    """Return the run that stands for several, and why: the most zeros of those near dense, else
    the best; None where nothing tells which that is."""
    pruned = _pruned(runs)
    if near := _near(pruned):
        most = max(near, key=lambda one: (one.zeros, one.value))
        return f"Most zeros at less than a point of {most.metric} below dense", most.run
    _, best = _best_of(pruned)
    return (f"Best {best.metric} of the pruned models", best.run) if best else None


def _near(pruned: Sequence[_Pruned]) -> list[_Pruned]:
    """Return those that are less than a percentage point below a dense model that was trained."""
    return [
        one
        for one in pruned
        if (dense := one.run.baseline) and dense.trained and is_near(one.metric, one.model, dense)
    ]


def _best_of(pruned: Sequence[_Pruned]) -> tuple[list[_Pruned], _Pruned | None]:
    """Return those that can be compared, and the best of them; None where they have no metric in
    common."""
    found = [one for one in pruned if not math.isnan(one.value)]
    if len(found) < 2 or len({one.metric for one in found}) != 1:
        return found, None
    sign = -1 if prefers_low(found[0].metric) else 1
    return found, max(found, key=lambda one: (sign * one.value, one.zeros))


def _best(pruned: Sequence[_Pruned]) -> Iterator[Finding]:
    found, best = _best_of(pruned)
    if best is None:
        return
    metric = best.metric
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
    near = _near(trained)
    if len(found) < 2:
        return
    if near:
        yield from _sparsest_and_smallest(near)
    elif trained:
        yield Finding("loss", "No pruned model is less than a percentage point below dense.")
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
