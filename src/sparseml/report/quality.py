"""Whether a model does better, or is faster, than another, as far as measurements can tell."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from sparseml.report.formats import (
    difference_text,
    is_fraction_metric,
    points_text,
    prefers_low,
)
from sparseml.report.schema import Latency, Variant

#: Of differences by chance alone 19 in 20 are within so many standard errors.
_STANDARD_ERRORS = 1.96
#: Differences of times below this are taken for none, however small the spread is.
SAME = 0.03
# and this is the most that may be put down to the spread
_ALIKE = 0.1
FEWEST_ROUNDS = 10


class Difference(NamedTuple):
    """How a metric of one model compares with that of another.

    ``kind`` is ``gain``, ``loss`` or ``same``, and ``info`` where it cannot be told which; ``text``
    such as ``0.22 points below``; ``note`` is what a sentence, ``hint`` what a cell of a table says
    after the other model's name.
    """

    kind: str
    text: str
    note: str = ""
    hint: str = ""


def standard_margin(name: str, value: float, samples: int | None) -> float | None:
    """Return how far chance alone moves a metric that is a fraction: 1.96 standard errors.

    :return: None for other metrics, and where the number of samples is not known
    """
    if not (is_fraction_metric(name, value) and samples):
        return None
    share = abs(value)
    return _STANDARD_ERRORS * math.sqrt(share * (1 - share) / samples)


def chance_margin(name: str, one: Variant, other: Variant) -> float | None:
    """Return the difference of a metric that chance alone explains.

    That is 1.96 standard errors of the difference of two binomial shares.

    :return: None for metrics that are no fractions, and where the numbers of samples are not known
    """
    models = (one, other)
    if not is_fraction_metric(name, *(model.metrics[name] for model in models)):
        return None
    margins = [standard_margin(name, model.metrics[name], model.samples) for model in models]
    return None if None in margins else math.hypot(*filter(None, margins))


def compare_metric(name: str, model: Variant, other: Variant) -> Difference:
    """Tell how a metric, which both models must have, compares with the other model's."""
    value, before = model.metrics[name], other.metrics[name]
    text, change = difference_text(name, value, before), value - before
    if not math.isfinite(change):
        return Difference("info", text)
    if change == 0:
        return Difference("same", text)
    margin = chance_margin(name, model, other)
    if margin is None and is_fraction_metric(name, value, before):
        return Difference("info", text, "; on how many samples is not recorded")
    if margin is not None and abs(change) <= margin:
        within = f"±{points_text(margin)}"
        samples = f"{min(model.samples or 0, other.samples or 0):,}"
        note = f" within what {samples} samples can tell ({within})"
        return Difference("same", "equal to", note, f" within {within}")
    better = (change < 0) == prefers_low(name)
    return Difference("gain" if better else "loss", text)


def is_near(name: str, model: Variant, dense: Variant) -> bool:
    """Whether a fraction is less than a percentage point below the dense model's, or above."""
    value, before = model.metrics[name], dense.metrics.get(name, math.nan)
    # as it is shown, so that what is said to be less than a point reads so
    return is_fraction_metric(name, value, before) and round(100 * (before - value), 2) < 1.0


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
    if min(taken.rounds, before.rounds) < FEWEST_ROUNDS or False in (
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
