"""Telling what got faster from what only looks so."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sparseml.report.finding import Finding
from sparseml.report.formats import ms_text, ratio_text
from sparseml.report.reading import Run
from sparseml.report.schema import Latency, Variant

__all__ = ["compare_latency", "latency_pairs", "speed_findings"]

#: Differences below this are taken for none, however small the spread is.
_SAME = 0.03
_FEWEST_ROUNDS = 10


def speed_findings(run: Run) -> Iterator[Finding]:
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

    It counts as faster or slower if the ranges between the quartiles do not overlap and both the
    medians and the fastest rounds, which other work on the machine disturbs least, differ by more
    than 3%. Fewer than ten rounds tell nothing (``info``).
    """
    ratio = fastest = _ratio(before.median_ms, taken.median_ms)
    if min(taken.rounds, before.rounds) < _FEWEST_ROUNDS:
        return "info", ratio
    if taken.fastest_ms is not None and before.fastest_ms is not None:
        fastest = _ratio(before.fastest_ms, taken.fastest_ms)
    if min(ratio, fastest) > 1 + _SAME and taken.upper_quartile_ms < before.lower_quartile_ms:
        return "gain", ratio
    if max(ratio, fastest) * (1 + _SAME) < 1 and taken.lower_quartile_ms > before.upper_quartile_ms:
        return "loss", ratio
    return "same", ratio


def _ratio(before: float, after: float) -> float:
    return before / after if after else math.inf


def _speed_text(name: str, taken: Latency, before: Latency, kind: str, ratio: float) -> str:
    threads = f" with {taken.threads} thread{'s' * (taken.threads != 1)}" if taken.threads else ""
    where = f"a batch of {taken.batch_size} on {taken.device}{threads}"
    times = f"{ms_text(taken.median_ms)} against {ms_text(before.median_ms)}"
    said = f"{where} takes the {name} model {times}"
    if kind == "gain":
        return f"Faster: {said}, {ratio_text(ratio)} as fast as dense."
    if kind == "loss":
        return f"Slower: {said}, {ratio_text(1 / ratio)} as long as dense."
    if kind == "info":
        return f"Not told apart: {said}, but {taken.rounds} rounds are too few to tell."
    return f"Not faster: {said}; that is within the spread."
