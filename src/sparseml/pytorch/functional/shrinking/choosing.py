"""Which units go: those whose gates have the largest gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseml.pytorch.functional.selection import lowest_mask


def importance(gradient: Tensor) -> Tensor:
    r"""Return the importance of units, :math:`-\partial L / \partial c` at :math:`c = 1`.

    To first order the loss changes by as much when the unit is removed. It has a sign: the units
    that the loss is better off without are the least important ones.

    :param gradient: of the gates, any shape
    :return: float64, shape of ``gradient``
    """
    return -gradient.detach().double()


def keep_in_each(scores: Tensor, pools: int, count: int) -> Tensor:
    """Keep all but the lowest of every pool, as many in each.

    :param scores: ``[units]``, pool after pool
    :param pools: how many pools there are, all of one size
    :param count: how many units go from every pool; one of each stays in any case
    :return: bool ``[units]`` on the CPU, True = keep; of equal scores the first ones are kept
    :raises ValueError: for NaN scores, and pools of different sizes
    """
    if pools < 1 or len(scores) % pools:
        raise ValueError(f"{len(scores)} units do not make {pools} pools of one size")
    rows = scores.detach().cpu().reshape(pools, -1)
    count = min(max(count, 0), rows.shape[1] - 1)
    return torch.cat([lowest_mask(row, count) for row in rows])


def keep_overall(scores: Sequence[Tensor], count: int, least: int = 1) -> list[Tensor]:
    """Keep all but the lowest of several pools together, and a number of each in any case.

    Exactly ``count`` units go, unless the pools would be left with fewer than ``least``: then as
    many as may.

    :param scores: of each pool, ``[units]``
    :param count: how many units go in all
    :param least: how many of each pool stay; all of a smaller one
    :return: for each pool bool ``[units]`` on the CPU, True = keep; of equal scores those of the
        first pool are kept, and of one pool the first ones
    :raises ValueError: for NaN scores
    """
    flat = [one.detach().cpu().double() for one in scores]
    spared = [_highest(one, min(least, len(one))) for one in flat]
    movable = torch.cat([~one for one in spared]) if spared else torch.zeros(0, dtype=torch.bool)
    together = torch.cat(flat) if flat else torch.zeros(0)
    keep = torch.ones_like(movable)
    free = together[movable]
    keep[movable] = lowest_mask(free, min(max(count, 0), len(free)))
    return list(keep.split([len(one) for one in flat]))


def _highest(scores: Tensor, count: int) -> Tensor:
    return lowest_mask(scores, len(scores) - count)
