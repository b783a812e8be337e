"""Values between given values."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

_CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda p: p,
    "cubic": lambda p: 1 - (1 - p) ** 3,
    "inverse_cubic": lambda p: 1 - (1 - p) ** (1 / 3),
}
INTERPOLATION_FUNCS = list(_CURVES)
_OF_SPARSITY: dict[str, Callable[[float], float]] = {
    **_CURVES,
    "cos": lambda p: 1 - math.cos(math.pi * p / 2),
    "cube": lambda p: p**3,
}
SPARSITY_CURVES = [*_OF_SPARSITY, "exp"]


def interpolate(
    x_cur: float, x0: float, x1: float, y0: float, y1: float, inter_func: str = "linear"
) -> float:
    r"""Return the value at ``x_cur`` of a curve that leads from ``(x0, y0)`` to ``(x1, y1)``.

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
    return _along(_CURVES[inter_func], x_cur, x0, x1, y0, y1)


def _along(
    curve: Callable[[float], float], x_cur: float, x0: float, x1: float, y0: float, y1: float
) -> float:
    share = (x_cur - x0) / (x1 - x0) if x1 != x0 else float(x_cur >= x1)
    progress = curve(min(max(share, 0.0), 1.0))
    if progress <= sys.float_info.epsilon:
        return y0
    if progress >= 1 - sys.float_info.epsilon:
        return y1
    return progress * (y1 - y0) + y0


def scheduled_sparsity(
    time: float, start: float, end: float, initial: float, final: float, curve: str = "cubic"
) -> float:
    """Return the sparsity asked for at ``time``.

    Exactly ``initial`` up to ``start``, exactly ``final`` from ``end`` on. A negative start means
    time 0; an end before the start means that there is no ramp: ``final`` at once. Infinite time
    (one shot) gives ``final``.

    Curves are those of :func:`interpolate`, and those of Intel Neural Compressor's pruner: ``exp``,
    where the density shrinks by one factor per unit of time; ``cos``, a quarter of a cosine, and
    ``cube``, both slow at first.

    :param curve: one of ``SPARSITY_CURVES``
    :raises ValueError: for an unknown curve
    """
    start = max(start, 0.0)
    if math.isinf(time) or end < start:
        time = start = end = 0.0
    if curve not in SPARSITY_CURVES:
        raise ValueError(f"inter_func must be one of {SPARSITY_CURVES}, found {curve!r}")
    shape = _exponential(initial, final) if curve == "exp" else _OF_SPARSITY[curve]
    return _along(shape, time, start, end, initial, final)


def _exponential(initial: float, final: float) -> Callable[[float], float]:
    """The share of the way from ``initial`` to ``final`` while the density decays."""
    if initial in (final, 1.0):
        return _CURVES["linear"]
    left = (1 - final) / (1 - initial)
    if left == 1.0:  # the ends are so near that the curve is straight
        return lambda progress: progress
    return lambda progress: (1 - left**progress) / (1 - left)
