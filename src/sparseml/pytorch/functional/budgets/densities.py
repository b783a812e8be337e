"""Densities by the shapes of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.functional.budgets.base import (
    Budget,
    Pools,
    Target,
    common_target,
    one_size,
    share_of_units,
)
from sparseml.pytorch.functional.budgets.ranking import ladder_of, nearest_fill
from sparseml.pytorch.functional.layer_densities import DENSITY_RULES, layer_densities, rounded
from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import lowest_mask, prune_count

__all__ = ["Densities"]


@dataclass(frozen=True)
class Densities(Budget):
    """As dense as each weight's shape says, so that all together have the target's sparsity.

    No tensor becomes sparser than the pattern can make it; what it cannot give, the others do.

    :param rule: one of :data:`~sparseml.pytorch.functional.layer_densities.DENSITY_RULES`
    :raises ValueError: for another rule
    """

    rule: str = "erdos_renyi_kernel"

    joint = True

    def __post_init__(self) -> None:
        if self.rule not in DENSITY_RULES:
            raise ValueError(f"rule must be one of {', '.join(DENSITY_RULES)}, found {self.rule!r}")

    def check(self, pools: Pools, target: Target) -> None:
        self.counts(pools, common_target(target))

    def choose(self, pools: Pools, target: Target, spread_ties: bool = False) -> list[Tensor]:
        sparsity = common_target(target)
        counts = self.counts(pools, sparsity)
        return [
            lowest_mask(pool.scores, count, spread_ties=spread_ties and pool.full == 1.0)
            for pool, count in zip(pools, counts, strict=True)
        ]

    def counts(self, pools: Pools, sparsity: float) -> list[int]:
        """How many units go from each pool."""
        ideal = self._ideal(pools, sparsity)
        if one_size(pools):
            share = share_of_units(pools[0], sparsity) if pools else 0.0
            if share == 1.0:  # near the full pattern's sparsity, too, where the ideal is below
                return [pool.units for pool in pools]
            total = prune_count(sum(pool.units for pool in pools), share)
            counts = rounded(
                [weights / int(pool.size) for weights, pool in zip(ideal, pools, strict=True)],
                total,
            )
            return [max(count, pool.gone) for count, pool in zip(counts, pools, strict=True)]
        return _whole_units(pools, ideal, prune_count(sum(p.weights for p in pools), sparsity))

    def _ideal(self, pools: Pools, sparsity: float) -> list[float]:
        """How many weights each pool should lose."""
        shapes = [shape for pool in pools for shape in pool.shapes]
        least = 1.0 - min((pool.full for pool in pools), default=1.0)
        densities = iter(layer_densities(shapes, sparsity, self.rule, least))
        return [_lost(pool, [1.0 - next(densities) for _ in pool.shapes]) for pool in pools]


def _lost(pool: Pool, sparsities: Sequence[float]) -> float:
    """How many weights a pool loses at these sparsities of its members."""
    sizes = [math.prod(shape) for shape in pool.shapes]
    lost = sum(size * sparsity for size, sparsity in zip(sizes, sparsities, strict=True))
    # a pool may stand for another number of weights than its members have
    return lost if pool.weights == sum(sizes) else lost * pool.weights / max(sum(sizes), 1)


def _whole_units(pools: Pools, ideal: Sequence[float], total: int) -> list[int]:
    """Counts that differ by less than a unit from the ideal, nearest to ``total`` weights."""
    ladders = [ladder_of(pool) for pool in pools]
    counts, extras, remainders = [], [], []
    for pool, ladder, weights in zip(pools, ladders, ideal, strict=True):
        count = max(ladder.within(math.floor(weights) - pool.missing), pool.gone)
        extra = ladder.weight(count + 1) - ladder.weight(count) if count < pool.units else 0
        counts.append(count)
        extras.append(extra)
        left = weights - pool.missing - ladder.weight(count)
        remainders.append(left / extra if extra else 0.0)
        total -= pool.missing + ladder.weight(count)
    order = sorted(range(len(pools)), key=lambda place: -remainders[place])
    order = [place for place in order if extras[place]]
    sizes = torch.tensor([extras[place] for place in order], dtype=torch.long)
    if total > int(sizes.sum()) + max(extras, default=0) // 2:
        raise ValueError(
            f"{total} more weights should be pruned than belong to units that the densities allow"
        )
    goes = nearest_fill(sizes, max(total, 0)) if len(sizes) else sizes.bool()
    for place, more in zip(order, goes.tolist(), strict=True):
        counts[place] += int(more)
    return counts
