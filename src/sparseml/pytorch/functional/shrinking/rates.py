"""How many units a compression rate takes away, and along which curve their gates fall."""

from __future__ import annotations

import math

DECREASING = ("sa", "sg", "ea", "eg")
"""At every step or at every epoch; arithmetically or geometrically."""

_LAST = 1e-5  # to which gates fall geometrically
_ROUNDING = 1e-9  # of counts that come out of floating point


def keep_ratio(both: float, one: float, rate: float) -> float:
    r"""Return the share of units to keep so that a share of the weights is kept.

    The positive root of :math:`n_1 x^2 + n_2 x = r\,(n_1 + n_2)`: a matrix of which both sides
    shrink keeps :math:`x^2` of its weights, one with one side that shrinks (and a vector) keeps
    :math:`x`.

    :param both: :math:`n_1`, weights in tensors of which both sides shrink
    :param one: :math:`n_2`, weights in tensors of which one side shrinks
    :param rate: :math:`r`, the share of weights to keep, above 0 and at most 1
    :return: :math:`x`, above 0 and at most 1
    :raises ValueError: for a rate outside of this, and without any weights that shrink
    """
    require_rate(rate)
    if both < 0 or one < 0 or both + one <= 0:
        raise ValueError(f"there must be weights that shrink, found {both:g} and {one:g}")
    if rate == 1.0:
        return 1.0
    # multiplied by its conjugate: exact also where nearly all shrinks on one side only
    return 2.0 * rate * (both + one) / (one + math.sqrt(one**2 + 4.0 * both * rate * (both + one)))


def require_rate(rate: float, name: str = "compression_rate") -> None:
    """Check a compression rate.

    :raises ValueError: naming ``name``, unless it is above 0 and at most 1
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError(
            f"{name} is the share of the parameters to keep, above 0 and at most 1, found {rate!r}"
        )


def removed_count(size: int, keep: float, iteration: int = 1, iterations: int = 1) -> int:
    r"""Return how many of ``size`` units are gone after an iteration, those before it included.

    In every iteration the same share :math:`1 - x^{1/k}` of what is left goes, so that
    :math:`\lceil n\,(1 - x^{i/k}) \rceil` are gone after iteration :math:`i` of :math:`k`. Counted
    from the beginning, several iterations end with as many units as a single one.

    :param size: :math:`n`, how many there were at first
    :param keep: :math:`x`, the share to keep in the end
    :raises ValueError: for a number of iterations below 1, or an iteration that is none of them
    """
    if not 1 <= iteration <= iterations:
        raise ValueError(f"iteration must be between 1 and {iterations}, found {iteration}")
    return max(math.ceil(size * (1.0 - keep ** (iteration / iterations)) - _ROUNDING), 0)


def gate_value(
    decreasing: str, step: int, steps: int, steps_per_epoch: int = 1, *, reference: bool = False
) -> float:
    r"""Return the gate of the units that go, as it is in the forward pass of one step.

    Arithmetically it falls along :math:`1 - i/(N-1)`, geometrically along :math:`\rho^{i/(N-1)}`
    with :math:`\rho = 10^{-5}`. By epochs, the first of :math:`P` epochs has :math:`1 - 1/P` or
    :math:`\rho^{1/P}` and the last 0 or :math:`\rho`. All of them are exactly 0 when the steps are
    over.

    :param decreasing: one of :data:`DECREASING`
    :param step: :math:`i`, from 0 on
    :param steps: :math:`N`, how many there are
    :param steps_per_epoch: counts for ``ea`` and ``eg`` only
    :param reference: as the first implementation has it: by steps, the gate falls before the first
        forward pass already, and so ends below 0: :math:`1 - (i+1)/(N-1)`; nothing is clamped
    :return: between 0 and 1, but with ``reference``
    :raises ValueError: for an unknown way to decrease, and numbers below what they may be
    """
    if decreasing not in DECREASING:
        raise ValueError(f"decreasing must be one of {', '.join(DECREASING)}, found {decreasing!r}")
    if step < 0 or steps < 1 or steps_per_epoch < 1:
        raise ValueError(
            "step must be at least 0, steps and steps_per_epoch at least 1, found "
            f"{step}, {steps} and {steps_per_epoch}"
        )
    if step >= steps and not reference:
        return 0.0
    if decreasing[0] == "e":
        epochs = max(round(steps / steps_per_epoch), 1)
        progress = min(step // steps_per_epoch + 1, epochs) / epochs
    elif steps == 1:
        return 0.0
    else:
        progress = (step + reference) / (steps - 1)
    value = 1.0 - progress if decreasing[1] == "a" else _LAST**progress
    return value if reference else min(max(value, 0.0), 1.0)
