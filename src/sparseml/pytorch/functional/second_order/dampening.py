r"""Choosing a dampening by trying some: which ones, and which of them to take.

A dampening is told by its decade, :math:`\lambda = 10^k \bar F` with the mean diagonal
:math:`\bar F` of the Fisher matrix. What it is good for is measured on data that had no part in
the Fisher matrix, by losses, or whatever else is the better the lower it is. Over the decades the
loss falls and rises again, so only those around its lowest value are tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

LOWEST, HIGHEST = -7, 3
"""Of the decades that are tried: from next to nothing to where little but magnitudes is left."""
_START, _STRIDE = -3, 2

Losses = Sequence[float]
"""Of the same batches each time, so that two dampenings can be compared batch by batch."""


def try_decades(
    judge: Callable[[int], Sequence[Losses]],
    lowest: int = LOWEST,
    highest: int = HIGHEST,
    near: int | None = None,
) -> list[dict[int, Losses]]:
    """Try decades until the best of every outcome has been tried with its neighbours.

    :param judge: tries a decade, and returns the losses of each of the outcomes that come of it
    :param near: where the best probably is; None to look in long strides first
    :return: for each outcome, decade → losses of all that were tried
    """
    tried: dict[int, Sequence[Losses]] = {}

    def look(decade: int) -> None:
        if lowest <= decade <= highest and decade not in tried:
            tried[decade] = judge(decade)

    start = _START if near is None else near
    look(start)
    for stride in (_STRIDE, 1) if near is None else (1,):
        before = -1
        while before != len(tried):
            before = len(tried)
            for place in range(len(tried[start])):
                best = best_decade({decade: each[place] for decade, each in tried.items()})
                for decade in (best - stride, best + stride):
                    look(decade)
            if stride == 1 and near is None:
                break
    count = len(tried[start])
    return [
        {decade: each[place] for decade, each in sorted(tried.items())} for place in range(count)
    ]


def mean_loss(losses: Losses) -> float:
    """Return the mean, infinity where one of them is not finite."""
    mean = math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.inf
    return mean


def best_decade(tried: Mapping[int, Losses], within: float | None = None) -> int:
    """Return the decade of the lowest loss, the largest of equal ones.

    :param tried: decade → losses
    :param within: take the largest whose loss is above the lowest by no more than so many standard
        errors of the difference; with None, only those that are exactly equal count as equal
    """
    lowest = min(sorted(tried, reverse=True), key=lambda decade: mean_loss(tried[decade]))
    if within is None or not math.isfinite(mean_loss(tried[lowest])):
        return lowest
    chosen = lowest
    for decade in sorted(decade for decade in tried if decade > lowest):
        pairs = zip(tried[decade], tried[lowest], strict=True)
        differences = [high - low for high, low in pairs]
        mean = mean_loss(differences)
        spread = math.fsum((one - mean) ** 2 for one in differences) if mean < math.inf else 0.0
        error = math.sqrt(spread / max(1, len(differences) - 1) / len(differences))
        if mean <= within * error:
            chosen = decade
    return chosen
