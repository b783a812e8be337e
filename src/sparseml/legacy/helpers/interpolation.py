"""Values between measured points, and the area under them."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

__all__ = ["interpolate_list_linear", "interpolated_integral"]


def interpolate_list_linear(
    measurements: Sequence[tuple[float, float]], x_val: float | Sequence[float]
) -> list[tuple[float, float]]:
    """Return points (x, y) on the lines through measured ones, which go on beyond both ends.

    :param measurements: at least two points (x, y), in any order
    :param x_val: where to interpolate, one place or several; the result is ordered by them
    :raises ValueError: for fewer than two measurements
    """
    if len(measurements) < 2:
        raise ValueError(f"at least two measurements are needed, found {len(measurements)}")
    points = sorted(measurements)
    xs = [x for x, _ in points]
    results = []
    for place in [x_val] if isinstance(x_val, (int, float)) else sorted(x_val):
        right = min(max(bisect.bisect_left(xs, place), 1), len(xs) - 1)
        (x0, y0), (x1, y1) = points[right - 1], points[right]
        slope = (y1 - y0) / (x1 - x0) if x1 != x0 else 0.0
        results.append((place, y0 + slope * (place - x0)))
    return results


def interpolated_integral(measurements: Sequence[tuple[float, float]]) -> float:
    """Return the area under the line through points (x, y), by the trapezoid rule.

    No points give 0, a single one its y.
    """
    if len(measurements) == 1:
        return measurements[0][1]
    pairs = itertools.pairwise(sorted(measurements))
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairs)
