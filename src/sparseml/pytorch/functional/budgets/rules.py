"""The budgets: each tensor by itself, by counts, by one ranking of all, by densities of shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from sparseml.pytorch.functional.budgets.base import (
    Budget,
    Pools,
    Target,
    common_target,
    one_size,
    pool_target,
    share_of_units,
    sparsity_bounds,
    whole,
)
from sparseml.pytorch.functional.budgets.ranking import (
    Ladder,
    global_counts,
    ladder_of,
    lowest_weights,
    nearest_fill,
    require_possible,
)
from sparseml.pytorch.functional.layer_densities import DENSITY_RULES, layer_densities, rounded
from sparseml.pytorch.functional.patterns.base import Pool
from sparseml.pytorch.functional.selection import joined, lowest_mask, prune_count, split_like


@dataclass(frozen=True)
class Uniform(Budget):
    """The target's sparsity in every tensor: one for all, or one for each.

    :param down: round down to whole units, instead of to the nearest, as Intel's pruner does
    """

    down: bool = False

    def check(self, pools: Pools, target: Target) -> None:
        if not self.down:
            for pool in pools:
                if pool.units and not pool.even:
                    require_removable(pool, self._weights(pool, pool_target(pool, target)))

    def choose(self, pools: Pools, target: Target, spread_ties: bool = False) -> list[Tensor]:
        keep = []
        for pool in pools:
            spread = spread_ties and pool.full == 1.0
            sparsity = target if isinstance(target, float) else pool_target(pool, target)
            if self.down:
                count = max(ladder_of(pool).within(self._weights(pool, sparsity)), pool.gone)
            elif pool.even:
                # where units lose all of their weights, the share of units is that of weights
                share = sparsity if pool.full == 1.0 else share_of_units(pool, sparsity)
                count = round(pool.units * share)
            else:
                total = self._weights(pool, sparsity)
                if pool.units:
                    require_removable(pool, total)
                keep += lowest_weights([pool], total, spread_ties=spread)
                continue
            keep.append(lowest_mask(pool.scores, count, spread_ties=spread))
        return keep

    def _weights(self, pool: Pool, sparsity: float) -> int:
        """Return how many weights go beside those that are missing."""
        if self.down:
            return whole(pool.weights * Fraction(str(sparsity))) - pool.missing
        return prune_count(pool.weights, sparsity) - pool.missing


@dataclass(frozen=True)
class Counts(Budget):
    """How much goes from each tensor, said outright; the target is not asked.

    Tensors that go together lose as many units as the least of them says, or as many weights as all
    say.

    :param counts: one for each tensor
    :param of: what they count, ``weights`` or ``units``
    :raises ValueError: for another ``of``, or a negative count
    """

    counts: tuple[int, ...]
    of: str = "weights"

    def __post_init__(self) -> None:
        if self.of not in ("weights", "units"):
            raise ValueError(f"counts are of weights or of units, found {self.of!r}")
        if any(count < 0 for count in self.counts):
            raise ValueError(f"counts are at least 0, found {min(self.counts)}")

    def check(self, pools: Pools, target: Target = 0.0) -> None:
        """Check that there is a count for each tensor, and that there is so much to prune."""
        tensors = 1 + max((member for pool in pools for member in pool.members), default=-1)
        if tensors > len(self.counts):
            raise ValueError(f"{tensors} tensors, but {len(self.counts)} counts")
        for pool in pools if self.of == "weights" else ():
            require_removable(pool, self._asked(pool))

    def choose(self, pools: Pools, target: Target = 0.0, spread_ties: bool = False) -> list[Tensor]:
        self.check(pools)
        keep = []
        for pool in pools:
            asked, spread = self._asked(pool), spread_ties and pool.full == 1.0
            if self.of == "units" or pool.size == 1:
                count = max(asked, pool.gone) if pool.units else 0
                keep.append(lowest_mask(pool.scores, count, spread_ties=spread))
            else:
                keep += lowest_weights([pool], asked, spread_ties=spread)
        return keep

    def _asked(self, pool: Pool) -> int:
        """How many units or weights go beside those that are missing."""
        asked = [self.counts[member] for member in pool.members]
        return min(asked) if self.of == "units" else sum(asked) - pool.missing


@dataclass(frozen=True)
class UnitShares(Budget):
    """Shares of the units that there were; at least one stays of each group.

    The target is a part of these shares, and units that have been removed count as gone. Units are
    counted, also where they share weights.

    :param initial: how many units each group had, in the pattern's order
    :param shares: of each, what goes at a target of 1
    """

    initial: tuple[int, ...]
    shares: tuple[float, ...]

    def choose(self, pools: Pools, target: Target, spread_ties: bool = False) -> list[Tensor]:
        asked, keep = common_target(target), []
        for pool, initial, share in zip(pools, self.initial, self.shares, strict=True):
            count = prune_count(initial, share * asked) - (initial - pool.units)
            count = min(max(count, pool.gone), pool.units - 1)
            keep.append(lowest_mask(pool.scores, count))
        return keep


@dataclass(frozen=True)
class Global(Budget):
    """The lowest units of all tensors together, within limits for each.

    Limits are met to whole units, and within them the choice is the one of lowest scores.

    :param max_sparsity: no tensor gets sparser than this
    :param min_sparsity: no tensor stays denser than ``1 - min_sparsity``
    :param final: the sparsity that the target grows to; on the way there the lower limit is in
        proportion. None: the target itself
    :param floor: every tensor keeps at least this share of the weights that it would keep if all
        were equally sparse, and at least one unit
    :raises ValueError: for limits outside [0, 1] or in the wrong order
    """

    max_sparsity: float = 1.0
    min_sparsity: float = 0.0
    final: float | None = None
    floor: float = 0.0

    joint = True

    def __post_init__(self) -> None:
        sparsity_bounds([], self.max_sparsity, self.min_sparsity)
        sparsity_bounds([], self.floor)

    def check(self, pools: Pools, target: Target) -> None:
        plan = self._planned if self.floor else self._plan
        plan(pools, common_target(target))

    def choose(self, pools: Pools, target: Target, spread_ties: bool = False) -> list[Tensor]:
        if not pools:
            return []
        plan = self._planned if self.floor else self._plan
        total, first, last = plan(pools, common_target(target))
        if self._limited:
            return lowest_units(pools, total, first, last)
        spread_ties = spread_ties and all(pool.full == 1.0 for pool in pools)
        return lowest_units(pools, total, spread_ties=spread_ties)

    @property
    def _limited(self) -> bool:
        return (self.max_sparsity, self.min_sparsity, self.floor) != (1.0, 0.0, 0.0)

    def most_kept_back(self, sizes: Sequence[int], sparsity: float) -> int:
        """Return how many weights cannot go although their scores may be the lowest, at most."""
        kept = [size - self.cap(size, sparsity) for size in sizes]
        return sum(sizes) if self.min_sparsity else sum(kept)

    def cap(self, size: int, sparsity: float) -> int:
        """Return how many weights of a tensor of ``size`` weights may go at most."""
        _, (cap,) = sparsity_bounds([size], self.max_sparsity)
        if self.floor:
            kept = math.ceil(self.floor * (1.0 - sparsity) * size)
            cap = min(cap, size - max(1, min(kept, size - prune_count(size, sparsity))))
        return max(cap, 0)

    def _planned(self, pools: Pools, sparsity: float) -> tuple[int, list[int], list[int]]:
        """As :meth:`_plan`; without a floor where so much goes that it leaves no room."""
        try:
            return self._plan(pools, sparsity)
        except ValueError:
            return replace(self, floor=0.0)._plan(pools, sparsity)

    def _plan(self, pools: Pools, sparsity: float) -> tuple[int, list[int], list[int]]:
        """How much goes, and the fewest and the most units of each pool.

        :return: a number of units where all have one size, else of weights
        """
        if self._limited:
            bounds = [self._bounds(pool, sparsity) for pool in pools]
        else:
            bounds = [(pool.gone, pool.units, (0, pool.removable)) for pool in pools]
        first, last = [least for least, _, _ in bounds], [most for _, most, _ in bounds]
        if one_size(pools):
            share = share_of_units(pools[0], sparsity) if pools else 0.0
            units = [pool.units for pool in pools]
            total = prune_count(sum(units), share)
            if any(pool.gone for pool in pools):
                total = max(total, sum(first))
            if self._limited:
                require_possible(total, units, first, last)
            return total, first, last
        total = prune_count(sum(pool.weights for pool in pools), sparsity)
        total -= sum(pool.missing for pool in pools)
        low, high = (sum(weights[end] for _, _, weights in bounds) for end in (0, 1))
        largest = max((int(pool.sizes().max()) for pool in pools if pool.units), default=0)
        spare = any(pool.gone or pool.missing for pool in pools)
        if total > high + largest // 2 or (total < low - largest // 2 and not spare):
            raise ValueError(
                f"{total} of {sum(pool.weights for pool in pools)} weights cannot be pruned: the "
                f"units that can go, and the limits per tensor, allow {low} to {high}"
            )
        return total, first, last

    def _bounds(self, pool: Pool, sparsity: float) -> tuple[int, int, tuple[int, int]]:
        """The fewest and the most units of a pool, and how many weights these have."""
        (floor,), _ = sparsity_bounds([pool.weights], self.max_sparsity, self.min_sparsity)
        cap = self.cap(pool.weights, sparsity)
        ladder = Ladder(pool.scores, pool.size) if isinstance(pool.size, int) else ladder_of(pool)
        most, wanted = ladder.within(cap - pool.missing), floor - pool.missing
        least = min(ladder.within(wanted - 1) + 1, pool.units) if wanted > 0 else 0
        if self.final is not None and sparsity < self.final:
            least = int(least * sparsity / self.final)
        most = max(most, pool.gone)
        least = min(max(least, pool.gone), most)
        return least, most, (ladder.weight(least), ladder.weight(most))


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
        ideal = []
        for pool in pools:
            sizes = [math.prod(shape) for shape in pool.shapes]
            lost = sum(size * (1.0 - next(densities)) for size in sizes)
            # a pool may stand for another number of weights than its members have
            same = pool.weights == sum(sizes)
            ideal.append(lost if same else lost * pool.weights / max(sum(sizes), 1))
        return ideal


def lowest_units(
    pools: Sequence[Pool],
    total: int,
    first: Sequence[int] | None = None,
    last: Sequence[int] | None = None,
    spread_ties: bool = False,
) -> list[Tensor]:
    """Prune the lowest ``total`` units of all pools where these have one size, else weights.

    :return: as :func:`lowest_weights`
    """
    if not one_size(pools):
        return lowest_weights(pools, total, first=first, last=last, spread_ties=spread_ties)
    scores = [pool.scores for pool in pools]
    if first is None:
        return split_like(lowest_mask(joined(scores), total, spread_ties=spread_ties), scores)
    counts = global_counts(scores, total, first, last)
    return [lowest_mask(each, count) for each, count in zip(scores, counts, strict=True)]


def require_removable(pool: Pool, total: int) -> None:
    """Check that all units together come near ``total`` weights.

    :raises ValueError: saying how many weights are in units
    """
    largest = pool.size if isinstance(pool.size, int) else int(pool.size.max())
    if total > pool.removable + largest // 2:
        raise ValueError(
            f"{total + pool.missing} of {pool.weights} weights cannot be pruned: only "
            f"{pool.removable + pool.missing} belong to units that can go"
        )


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
