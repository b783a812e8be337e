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
    share = (x_cur - x0) / (x1 - x0) if x1 != x0 else float(x_cur >= x1)
    progress = _CURVES[inter_func](min(max(share, 0.0), 1.0))
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

    :raises ValueError: for an unknown curve
    """
    start = max(start, 0.0)
    if math.isinf(time) or end < start:
        time = start = end = 0.0
    return interpolate(time, start, end, initial, final, curve)
