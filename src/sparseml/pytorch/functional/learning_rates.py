"""Learning rates as functions of time, each the rate of one moment without any history.

Ramps and cycles run from one rate to another, decays from a base rate down. Steps are optimizer
steps counted from where the schedule starts.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

# Float sums such as 0.1 + 0.2 miss a whole step by a rounding error; steps are far coarser.
_DIGITS = 6


def linear_rate(progress: float, initial: float, final: float) -> float:
    """A straight line from ``initial`` at ``progress`` 0 to ``final`` at 1 and beyond."""
    progress = min(max(progress, 0.0), 1.0)
    return final if progress == 1.0 else initial + progress * (final - initial)


def cosine_rate(progress: float, initial: float, final: float) -> float:
    """Half a cosine from ``initial`` at ``progress`` 0 to ``final`` at 1 and beyond.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), equation
    (5), for one cycle.
    """
    progress = min(max(progress, 0.0), 1.0)
    return linear_rate((1 - math.cos(math.pi * progress)) / 2, initial, final)


def cyclic_linear_rate(
    step: float, total_steps: float, cycle_steps: float, initial: float, final: float
) -> float:
    """Straight lines from ``initial`` to ``final``, begun anew every ``cycle_steps``.

    A cycle reaches ``final`` at its last step; the next step, also the one after the very last
    cycle, is back at ``initial``. When ``total_steps`` is no multiple of the cycle, what remains is
    a shorter and steeper cycle, whose steps are counted modulo its length from step 0 on as those
    of the others (as in SparseML 1.x; so it begins part way unless its length divides theirs).
    """
    step = round(min(max(step, 0.0), total_steps), _DIGITS)
    cycle = cycle_steps
    if step > total_steps // cycle_steps * cycle_steps:
        cycle = total_steps % cycle_steps
    if cycle <= 1.0:
        return initial
    return linear_rate(round(step % cycle, _DIGITS) / (cycle - 1), initial, final)


def cycle_of(step: float, cycle_steps: float) -> tuple[int, float]:
    """Which cycle of equal ones a step is in, from 0, and how many steps into it."""
    number = math.floor(round(step / cycle_steps, _DIGITS))
    return number, max(round(step - number * cycle_steps, _DIGITS), 0.0)


def decayed_rate(
    periods: float, initial: float, final: float, factor: float, at_once: bool = False
) -> float:
    """``initial``, multiplied by ``factor`` in every period, but never below ``final``.

    :param periods: how many have passed
    :param at_once: change only where a period ends
    """
    passed = math.floor(round(periods, _DIGITS)) if at_once else periods
    return max(initial * factor**passed, final)


def warmup_factor(step: float, warmup_steps: float) -> float:
    """What to multiply rates by: a straight line from 0 at step 0 to 1 after ``warmup_steps``.

    Without a warm-up it is 1 from step 0 on; one shorter than a step takes a step.
    """
    return min(step / max(warmup_steps, 1.0), 1.0) if warmup_steps > 0.0 else 1.0


def step_rate(step: int, base: float, gamma: float, step_size: int) -> float:
    """``base``, multiplied by ``gamma`` after every ``step_size`` steps."""
    return base * gamma ** (step // step_size)


def multi_step_rate(step: int, base: float, gamma: float, milestones: Sequence[int]) -> float:
    """``base``, multiplied by ``gamma`` at each of the increasing ``milestones``."""
    return base * gamma ** bisect.bisect_right(milestones, step)


def warm_restarts_rate(step: int, base: float, lowest: float, cycle_steps: int) -> float:
    """A cosine from ``base`` towards ``lowest``, begun anew every ``cycle_steps``.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), equation
    (5), with cycles of equal length.
    """
    return cosine_rate(step % cycle_steps / cycle_steps, base, lowest)
