"""Whether a model does better than another, as far as the number of test samples can tell."""

from __future__ import annotations

import math
from typing import NamedTuple

from sparseml.report.formats import (
    difference_text,
    is_fraction_metric,
    points_text,
    prefers_low,
)
from sparseml.report.schema import Variant

__all__ = ["Difference", "chance_margin", "compare_metric", "is_near"]

#: Of differences by chance alone 19 in 20 are within so many standard errors.
_STANDARD_ERRORS = 1.96
_POINT = 0.01


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


def chance_margin(name: str, one: Variant, other: Variant) -> float | None:
    """Return the difference of a metric that chance alone explains.

    That is 1.96 standard errors of the difference of two binomial shares.

    :return: None for metrics that are no fractions, and where the numbers of samples are not known
    """
    values = one.metrics[name], other.metrics[name]
    if not (is_fraction_metric(name, *values) and one.samples and other.samples):
        return None
    counts = one.samples, other.samples
    shares = zip(map(abs, values), counts, strict=True)
    return _STANDARD_ERRORS * math.sqrt(sum(p * (1 - p) / count for p, count in shares))


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
    return is_fraction_metric(name, value, before) and before - value < _POINT
