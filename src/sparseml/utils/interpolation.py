"""Values between given values."""

from __future__ import annotations

import bisect
import itertools
import sys
from collections.abc import Callable, Sequence

__all__ = ["INTERPOLATION_FUNCS", "interpolate", "interpolate_list_linear", "interpolated_integral"]

_CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda p: p,
    "cubic": lambda p: 1 - (1 - p) ** 3,
    "inverse_cubic": lambda p: 1 - (1 - p) ** (1 / 3),
}
INTERPOLATION_FUNCS = list(_CURVES)


def interpolate(
    x_cur: float, x0: float, x1: float, y0: float, y1: float, inter_func: str = "linear"
) -> float:
    r"""
    The value at ``x_cur`` of a curve that leads from ``(x0, y0)`` to ``(x1, y1)``.

    With :math:`p = (x - x_0) / (x_1 - x_0)`, clamped to [0, 1], the curve is
    :math:`y_0 + (y_1 - y_0) f(p)` where f is p (linear), :math:`1 - (1 - p)^3` (cubic: Zhu and
    Gupta, "To prune, or not to prune", 2017) or :math:`1 - (1 - p)^{1/3}` (inverse_cubic). Both
    ends are exact; before ``x0`` the value is ``y0`` and after ``x1`` it is ``y1``. If the two
    ends coincide the value jumps there from ``y0`` to ``y1``.

    :param inter_func: one of ``INTERPOLATION_FUNCS``
    :raises ValueError: for another ``inter_func``
    """
    if inter_func not in _CURVES:
        raise ValueError(f"inter_func must be one of {INTERPOLATION_FUNCS}, found {inter_func!r}")
    share = (x_cur - x0) / (x1 - x0) if x1 != x0 else float(x_cur >= x1)
    progress = _CURVES[inter_func](min(max(share, 0.0), 1.0))
    if progress <= sys.float_info.epsilon:
        return y0
    if progress >= 1 - sys.float_info.epsilon:
        return y1
    return progress * (y1 - y0) + y0


def interpolate_list_linear(
    measurements: Sequence[tuple[float, float]], x_val: float | Sequence[float]
) -> list[tuple[float, float]]:
    """
    Piecewise linear values through measured points, continued straight beyond both ends.

    :param measurements: at least two points (x, y), in any order
    :param x_val: where to interpolate, one place or several
    :return: a point (x, y) for each place, ordered by x
    :raises ValueError: for fewer than two measurements
    """
    if len(measurements) < 2:
        raise ValueError(f"at least two measurements are needed, found {len(measurements)}")
    points = sorted(measurements)
    xs = [x for x, _ in points]
    places = [x_val] if isinstance(x_val, (int, float)) else sorted(x_val)
    results = []
    for place in places:
        right = min(max(bisect.bisect_left(xs, place), 1), len(xs) - 1)
        (x0, y0), (x1, y1) = points[right - 1], points[right]
        slope = (y1 - y0) / (x1 - x0) if x1 != x0 else 0.0
        results.append((place, y0 + slope * (place - x0)))
    return results


def interpolated_integral(measurements: Sequence[tuple[float, float]]) -> float:
    """
    The area under the line through measured points, by the trapezoid rule.

    :param measurements: points (x, y) in any order; none gives 0, a single one gives its y
    """
    if len(measurements) == 1:
        return measurements[0][1]
    points = sorted(measurements)
    return sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(points))
