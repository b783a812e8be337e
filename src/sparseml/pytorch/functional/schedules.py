"""When sparsity grows, and along which curve.

Times are in any one unit, epochs or optimizer steps. Curves are named as in recipes:
``linear``; ``cubic``, the polynomial decay of Zhu and Gupta, "To prune, or not to prune" (2017),
equation (1), fast at first and slow at the end; ``inverse_cubic``, its mirror image.
"""

from __future__ import annotations

import math

from sparseml.utils.interpolation import INTERPOLATION_FUNCS, interpolate

__all__ = [
    "CURVES",
    "cosine_fraction",
    "is_dense_phase",
    "scheduled_sparsity",
    "sparsity_timeline",
    "update_times",
]

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


def is_dense_phase(time: float, start: float, end: float, period: float) -> bool:
    """Whether alternating compressed / decompressed training is dense at ``time``.

    Phases of ``period`` alternate from ``start`` on, the first one dense; none is dense that the
    end would cut short, so that the run ends sparse: Peste et al., "AC/DC: alternating
    compressed/decompressed training of deep neural networks" (2021). Infinite time (one shot) is
    sparse.

    :param start: a negative start means 0
    :param period: above 0
    """
    if math.isinf(time):
        return False
    phase = math.floor(max(time - max(start, 0.0), 0.0) / period + _TOLERANCE)
    return phase % 2 == 0 and end - period > time + _TOLERANCE


def cosine_fraction(time: float, start: float, end: float, initial: float) -> float:
    r"""A fraction that falls from ``initial`` at ``start`` to 0 at ``end`` along half a cosine.

    :math:`f(t) = \frac{f_0}{2} (1 + \cos \pi \frac{t - t_0}{t_1 - t_0})`, the share of connections
    that RigL replaces: Evci et al., "Rigging the lottery" (2020), section 3. Before the start it is
    ``initial``, from the end on (and at infinite time) 0.
    """
    start = max(start, 0.0)
    if time >= end or end <= start:
        return 0.0
    progress = max(time - start, 0.0) / (end - start)
    return initial / 2.0 * (1.0 + math.cos(math.pi * progress))


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
