"""When sparsity grows, and along which curve.

Times are in any one unit, epochs or optimizer steps. Curves are named as in recipes:
``linear``; ``cubic``, the polynomial decay of Zhu and Gupta, "To prune, or not to prune" (2017),
equation (1), fast at first and slow at the end; ``inverse_cubic``, its mirror image.
"""

from __future__ import annotations

import math

from sparseml.utils.interpolation import INTERPOLATION_FUNCS, interpolate

__all__ = ["CURVES", "scheduled_sparsity", "sparsity_timeline", "update_times"]

CURVES = tuple(INTERPOLATION_FUNCS)

# float sums such as 0.1 + 0.2 overshoot by a rounding error; steps are far coarser than this
_TOLERANCE = 1e-9
_MOST_TIMES = 1_000_000


def scheduled_sparsity(
    time: float, start: float, end: float, initial: float, final: float, curve: str = "cubic"
) -> float:
    """The sparsity asked for at ``time``.

    Exactly ``initial`` up to ``start``, exactly ``final`` from ``end`` on. A negative start means
    time 0; an end before the start means that there is no ramp: ``final`` at once. Infinite time
    (one shot) gives ``final``.

    :raises ValueError: for an unknown curve
    """
    start = max(start, 0.0)
    if math.isinf(time) or end < start:
        time = start = end = 0.0
    return interpolate(time, start, end, initial, final, curve)


def update_times(start: float, end: float, frequency: float) -> list[float]:
    """When a schedule updates: at ``start``, every ``frequency`` after that, and at ``end``.

    :param start: a negative start means 0
    :param end: at least ``start``
    :param frequency: time between updates, above 0 (for "every step" pass the length of a step)
    :return: increasing times, ``start`` first and ``end`` last, each once
    :raises ValueError: for a frequency that is not positive, an end before the start, or more than
        a million updates
    """
    start = max(start, 0.0)
    if not frequency > 0:
        raise ValueError(f"frequency must be above 0, found {frequency}")
    if not start <= end < math.inf:
        raise ValueError(f"end must be finite and not before start ({start}), found {end}")
    between = math.ceil((end - start) / frequency - _TOLERANCE)
    if between > _MOST_TIMES:
        raise ValueError(f"{between} updates between {start} and {end} are more than {_MOST_TIMES}")
    times = [start + number * frequency for number in range(between)]
    return [*times, end]


def sparsity_timeline(
    start: float,
    end: float,
    frequency: float,
    initial: float,
    final: float,
    curve: str = "cubic",
) -> list[tuple[float, float]]:
    """``(time, sparsity)`` at every update of a gradual schedule; arguments as above."""
    return [
        (time, scheduled_sparsity(time, start, end, initial, final, curve))
        for time in update_times(start, end, frequency)
    ]
