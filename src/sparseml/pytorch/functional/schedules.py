"""Along which curve sparsity grows, and what alternates or falls beside it.

Times are in any one unit, epochs or optimizer steps. Curves are named as in recipes:
``linear``; ``cubic``, the polynomial decay of Zhu and Gupta, "To prune, or not to prune" (2017),
equation (1), fast at first and slow at the end; ``inverse_cubic``, its mirror image; ``exp``,
``cos`` and ``cube`` of Intel Neural Compressor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sparseml.utils.interpolation import SPARSITY_CURVES, scheduled_sparsity

__all__ = [
    "CURVES",
    "Ramp",
    "cosine_fraction",
    "is_dense_phase",
    "over_whole_intervals",
    "scheduled_sparsity",
]

CURVES = tuple(SPARSITY_CURVES)

# float sums such as 0.1 + 0.2 overshoot by a rounding error; steps are far coarser than this
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Ramp:
    """From one sparsity to another along a curve, from whenever a schedule starts to its end.

    :param initial: sparsity at the start, in [0, 1]
    :param final: sparsity at the end, in [0, 1]
    :param curve: one of ``CURVES``
    """

    initial: float
    final: float
    curve: str = "cubic"

    def at(self, time: float, start: float, end: float) -> float:
        """Return the sparsity asked for at ``time``; see :func:`scheduled_sparsity`."""
        return scheduled_sparsity(time, start, end, self.initial, self.final, self.curve)


def is_dense_phase(time: float, start: float, end: float, period: float) -> bool:
    """Return whether alternating compressed / decompressed training is dense at ``time``.

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
    r"""Return a fraction that falls from ``initial`` to 0 along half a cosine.

    :math:`f(t) = \frac{f_0}{2} (1 + \cos \pi \frac{t - t_0}{t_1 - t_0})`, the share of connections
    that RigL replaces: Evci et al., "Rigging the lottery" (2020), section 3. Up to the start it is
    ``initial``, from the end on (and at infinite time) 0.
    """
    start = max(start, 0.0)
    if time >= end or end <= start:
        return 0.0
    progress = max(time - start, 0.0) / (end - start)
    return initial / 2.0 * (1.0 + math.cos(math.pi * progress))


def over_whole_intervals(time: float, start: float, end: float, every: float) -> float:
    """Return the time to ask a curve for that gets to its end with the last whole interval.

    In Intel Neural Compressor update ``k`` of ``T = (end - start) // every`` is ``k / T`` of the
    way along the curve, whatever is left of the time after the last; a window of less than an
    interval is over as it begins.

    :param every: the interval; not above 0 means that updates go on to the end
    """
    start = max(start, 0.0)
    if every <= 0.0 or end <= start or time < start:
        return time
    intervals, done = math.floor((end - start) / every + _TOLERANCE), (time - start) / every
    if done >= intervals - _TOLERANCE:
        return end
    return start + (end - start) * done / intervals
