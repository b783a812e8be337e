"""How dense each layer of a sparse network shall be, from its shape alone.

Random sparse graphs connect wide layers relatively less than narrow ones: Mocanu et al., "Scalable
training of artificial neural networks with adaptive sparse connectivity" (2018), equation (1), for
matrices; Evci et al., "Rigging the lottery" (2020), section 3, with the kernel's size for
convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from sparseml.pytorch.functional.selection import prune_count, require_sparsity

Shape = Sequence[int]


DENSITY_RULES: dict[str, Callable[[Shape], float]] = {
    "uniform": lambda shape: 1.0,
    "erdos_renyi": lambda shape: (shape[0] + shape[1]) / (shape[0] * shape[1]),
    "erdos_renyi_kernel": lambda shape: sum(shape) / math.prod(shape),
}
"""What the density of a layer is proportional to, given the shape of its weight."""


def layer_densities(
    shapes: Sequence[Shape],
    sparsity: float,
    rule: str = "erdos_renyi_kernel",
    least: float = 0.0,
) -> list[float]:
    r"""The density of each layer: :math:`\min(1, \epsilon\, r(\mathrm{shape}))`.

    :math:`\epsilon` is such that ``1 - sparsity`` of all weights are kept: what a layer that would
    be denser than 1 cannot take is spread over the others.

    :param shapes: the weights' shapes, ``[out, in, *kernel]``
    :param sparsity: the fraction of all weights to prune, in [0, 1]
    :param rule: :math:`r`, one of :data:`DENSITY_RULES`
    :param least: no layer is less dense; what it has above its share the others lack
    :return: densities in [0, 1], one per shape; 1 for a weight without elements
    :raises ValueError: for a sparsity outside [0, 1], an unknown rule, or, unless that is
        ``uniform``, a shape of fewer than two dimensions
    """
    require_sparsity(sparsity)
    if rule not in DENSITY_RULES:
        raise ValueError(f"rule must be one of {', '.join(DENSITY_RULES)}, found {rule!r}")
    flat = [tuple(shape) for shape in shapes if len(shape) < 2]
    if flat and rule != "uniform":
        raise ValueError(f"{rule} needs shapes of at least two dimensions, found {flat[0]}")
    sizes = [math.prod(shape) for shape in shapes]
    ratios = [
        DENSITY_RULES[rule](shape) if size else 0.0
        for shape, size in zip(shapes, sizes, strict=True)
    ]
    volume = (1.0 - sparsity) * sum(sizes)
    return _filled_from(least, sizes, ratios, volume)


def density_counts(
    shapes: Sequence[Shape], sparsity: float, rule: str = "erdos_renyi_kernel"
) -> list[int]:
    """How many weights to prune in each layer, by :func:`layer_densities`.

    :return: whole numbers that differ by less than 1 from what the densities say, with a sum of
        exactly ``round(total * sparsity)``; of equal remainders those of earlier layers round up
    :raises ValueError: as :func:`layer_densities`
    """
    sizes = [math.prod(shape) for shape in shapes]
    densities = layer_densities(shapes, sparsity, rule)
    ideal = [size * (1.0 - density) for size, density in zip(sizes, densities, strict=True)]
    return rounded(ideal, prune_count(sum(sizes), sparsity))


def rounded(ideal: Sequence[float], total: int) -> list[int]:
    """Whole numbers that differ by less than 1 from ``ideal``, with a sum of ``total``.

    :param ideal: numbers whose sum is ``total`` but for rounding; of equal remainders the earlier
        ones round up
    """
    counts = [math.floor(value) for value in ideal]
    by_remainder = sorted(range(len(ideal)), key=lambda place: counts[place] - ideal[place])
    for place in by_remainder[: total - sum(counts)]:
        counts[place] += 1
    return counts


def _filled_from(
    least: float, sizes: Sequence[int], ratios: Sequence[float], volume: float
) -> list[float]:
    """As :func:`_filled_up`, but with densities of at least ``least``."""
    densities = [least] * len(sizes)
    rising = list(range(len(sizes)))
    while rising:
        found = _filled_up([sizes[p] for p in rising], [ratios[p] for p in rising], volume)
        low = [place for place, density in zip(rising, found, strict=True) if density < least]
        if not low:
            for place, density in zip(rising, found, strict=True):
                densities[place] = density
            break
        volume -= least * sum(sizes[place] for place in low)
        rising = [place for place in rising if place not in low]
    return densities


def _filled_up(sizes: Sequence[int], ratios: Sequence[float], volume: float) -> list[float]:
    """Densities in proportion to ``ratios``, at most 1, that keep ``volume`` weights."""
    densities = [1.0] * len(sizes)
    open_share = math.fsum(ratio * size for ratio, size in zip(ratios, sizes, strict=True))
    steepest_first = sorted(
        (place for place in range(len(sizes)) if sizes[place]), key=lambda place: -ratios[place]
    )
    for number, place in enumerate(steepest_first):
        if volume * ratios[place] < open_share:
            for rest in steepest_first[number:]:
                densities[rest] = volume * ratios[rest] / open_share
            break
        volume -= sizes[place]
        open_share -= ratios[place] * sizes[place]
    return densities
