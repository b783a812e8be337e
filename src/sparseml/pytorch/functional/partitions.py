"""Groups of whole tensors, and which of them is grown when, for scheduled grow-and-prune.

Tensors are known by their positions. A partition is a tuple of positions in ascending order; what
is grown in a step is one as well. Ma et al., "Effective Model Sparsification by Scheduled
Grow-and-Prune Methods" (2022).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sparseml.utils.text import few

Partition = tuple[int, ...]


def contiguous_partitions(sizes: Sequence[int], count: int) -> list[Partition]:
    """Cut a row of tensors into partitions that hold about as many weights each.

    No partition is empty, and the largest exceeds the smallest by no more than the largest tensor
    has weights, as can always be done (Barany and Grinberg, "Block partitions of sequences", 2015).
    Of the ways to do it, it is the one with the least sum of squares.

    :param sizes: how many weights each tensor has
    :param count: how many partitions, from 1 to as many as there are tensors
    :raises ValueError: for another count
    """
    if not 1 <= count <= len(sizes):
        raise ValueError(f"{len(sizes)} tensors make 1 to {len(sizes)} partitions, found {count}")
    before = np.concatenate([[0], np.cumsum(np.maximum(sizes, 1))])
    within: NDArray[np.int64] = before[None, :] - before[:, None]  # [from, to]: weights in between
    least = _most_for_all(before, count)
    allowed = (within >= least) & (within <= least + int(np.maximum(sizes, 1).max()))
    price = np.where(allowed, (within - before[-1] / count) ** 2, np.inf)
    paid, cuts = np.where(before == 0, 0.0, np.inf), []
    for _ in range(count):
        ways = paid[:, None] + price
        paid = ways.min(0)
        cuts.append(ways.argmin(0))
    ends = [len(sizes)]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1]]))
    ends.reverse()
    return [tuple(range(*pair)) for pair in itertools.pairwise(ends)]


def require_partitions(partitions: Sequence[Sequence[int]], names: Sequence[str]) -> None:
    """Check that every tensor is in just one partition, and that none is empty.

    :param names: of the tensors, for messages
    :raises ValueError: naming the partition, or the tensors
    """
    owner: dict[int, int] = {}
    for number, partition in enumerate(partitions):
        if not partition:
            raise ValueError(f"partition {number} has no tensor")
        for place in partition:
            if owner.setdefault(place, number) != number:
                raise ValueError(f"{names[place]} is in partitions {owner[place]} and {number}")
    if left := [name for place, name in enumerate(names) if place not in owner]:
        some = f"{len(left)} of {len(names)}"
        raise ValueError(f"{some} tensors are in no partition: {few(left)}")


def cyclic_groups(partitions: Sequence[Partition], steps: int) -> list[Partition]:
    """Return what is grown in each of so many steps: one partition after the other, in a ring."""
    return [partitions[step % len(partitions)] for step in range(steps)]


def random_groups(tensors: int, count: int, steps: int, seed: int) -> list[Partition]:
    """Return what is grown in each step: tensors drawn by lot from those not grown before it.

    Two groups in succession share no tensor; a tensor may well wait for several steps.

    :param tensors: how many there are
    :param count: every group has the ``count``-th part of them, rounded down
    :param seed: of the lot alone; the global generators are left as they are
    :raises ValueError: for a ``count`` below 2, which leaves nothing to draw from, or too high
    """
    if not 2 <= count <= tensors:
        raise ValueError(
            f"of {tensors} tensors the 2nd to {tensors}th part may be drawn, found {count}"
        )
    lot, last, groups = random.Random(seed), set[int](), []
    for _ in range(steps):
        left = [place for place in range(tensors) if place not in last]
        last = set(lot.sample(left, tensors // count))
        groups.append(tuple(sorted(last)))
    return groups


def _most_for_all(before: NDArray[np.int64], count: int) -> int:
    """The most weights that each of ``count`` partitions can have at least."""

    def fits(least: int) -> bool:
        place = 0
        for _ in range(count):
            place = int(np.searchsorted(before, before[place] + least))
            if place >= len(before):
                return False
        return True

    low, high = 1, int(before[-1]) // count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
