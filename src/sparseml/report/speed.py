"""Telling what got faster from what only looks so."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sparseml.report.formats import ms_text, quartiles_text, ratio_text, setting_text
from sparseml.report.reading import Run
from sparseml.report.schema import Finding, Latency, Variant

__all__ = ["SAME", "compare_latency", "latency_pairs", "speed_findings"]

#: Differences below this are taken for none, however small the spread is.
SAME = 0.03
# and this is the most that may be put down to the spread
_ALIKE = 0.1
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
    than 3%. Else it is the same if the medians differ by no more than 10%. It is not known
    (``info``) if they do, after fewer than ten rounds, and if the quartiles did not settle.
    """
    ratio = fastest = _ratio(before.median_ms, taken.median_ms)
    if min(taken.rounds, before.rounds) < _FEWEST_ROUNDS or False in (
        taken.settled,
        before.settled,
    ):
        return "info", ratio
    if taken.fastest_ms is not None and before.fastest_ms is not None:
        fastest = _ratio(before.fastest_ms, taken.fastest_ms)
    if min(ratio, fastest) > 1 + SAME and taken.upper_quartile_ms < before.lower_quartile_ms:
        return "gain", ratio
    if max(ratio, fastest) * (1 + SAME) < 1 and taken.lower_quartile_ms > before.upper_quartile_ms:
        return "loss", ratio
    return ("same" if max(ratio, 1 / ratio) <= 1 + _ALIKE else "info"), ratio


def _ratio(before: float, after: float) -> float:
    return before / after if before and after else (math.inf if before else 1.0)


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
    if taken.rounds < _FEWEST_ROUNDS:
        reason = f"{taken.rounds} rounds are too few to tell"
    elif False in (taken.settled, before.settled):
        reason = f"after {taken.rounds} rounds the times had not settled"
    else:
        reason = "that is too wide a spread to tell"
    return f"Could not be measured: {said}; {spread}, and {reason}."
