r"""CAP: removing weights one after another, always the one that costs least next.

Per block, from the inverse Fisher matrix H and weights w (Kuznedelev et al., "CAP:
Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models", 2023, algorithm 1):

.. math:: p = \arg\min_i \frac{w_i^2}{H_{ii}}, \qquad
          w \leftarrow w - H_{:,p} \frac{w_p}{H_{pp}}, \qquad
          H \leftarrow H - \frac{H_{:,p} H_{p,:}}{H_{pp}}

repeated among the weights that are left. Only the order and the cumulative losses are kept:
removing the first k weights of the order one by one ends where removing them jointly does
(:func:`.joint_update`), so the weights of any sparsity follow
from the order and the original H.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import BlockInverse
from sparseml.pytorch.functional.second_order.obs import kernels_for, pivot_floor, require_blocks

_LARGEST_BLOCK = torch.iinfo(torch.int16).max
_SAMPLED_BLOCKS = 64
_SAMPLED_SHARE = 16
_MARGIN = 1.25


@dataclass(frozen=True)
class Elimination:
    """In which order the groups of each block go, and what that costs.

    :param order: int16, ``[R, depth]``: index within the block of the group (of the weight, for
        groups of one) removed at each step; -1 after the last step that was looked at
    :param losses: ``[R, depth]``: increase of the loss by all steps so far, never falling along a
        block; inf where ``order`` is -1
    :param group: weights per group
    :param block_size: weights per block
    """

    order: Tensor
    losses: Tensor
    group: int
    block_size: int

    def scores(self) -> Tensor:
        """The losses as a score per weight: pruning the lowest k takes the cheapest prefixes.

        :return: ``[R, block_size]``; inf for weights whose removal was not looked at
        """
        groups = self.block_size // self.group
        # steps that were not looked at fall into an extra place that is cut off
        place = torch.where(self.order >= 0, self.order.long(), groups)
        score = self.losses.new_full((len(self.order), groups + 1), torch.inf)
        score.scatter_(1, place, self.losses)
        return score[:, :groups].repeat_interleave(self.group, dim=1)


def eliminate(
    weights: Tensor,
    inverse: Tensor,
    live: Tensor,
    *,
    depth: int | None = None,
    limit: float = float("inf"),
    group: int = 1,
    nm: tuple[int, int] | None = None,
    floor: Tensor | None = None,
    backend: str = "auto",
) -> Elimination:
    """Find the order in which the weights of each block are best removed.

    Costs about ``R B^3 / 3`` multiply-adds for all steps, and no memory beyond the results.
    ``inverse`` is only read.

    :param weights: ``[R, B]``
    :param inverse: ``[R, B, B]``, of the Fisher matrix in which weights that are gone already are
        isolated
    :param live: weights that are still there, bool ``[R, B]``; only these can be removed
    :param depth: most steps per block; all by default
    :param limit: do not look beyond the first step whose cumulative loss is above this
    :param group: weights per group; consecutive, removed together
    :param nm: ``(N, M)``: of every M consecutive weights at least N stay; weights that are gone
        already count
    :param floor: lower bounds of the conditional variances, ``[R, B]``; ``1 / F_ii`` is exact and
        keeps rounding errors from breaking an ill-conditioned block
    :param backend: see :func:`.kernels_for`
    :raises ValueError: for arguments that do not belong together
    """
    require_blocks(weights, inverse, group)
    size = weights.shape[1]
    if size > _LARGEST_BLOCK:
        raise ValueError(f"blocks of at most {_LARGEST_BLOCK} weights, found {size}")
    if nm is not None and (group != 1 or not 0 < nm[0] < nm[1] or size % nm[1]):
        raise ValueError(
            f"N:M keeps N of M single weights with 0 < N < M, and M divides the block size; found "
            f"{nm[0]}:{nm[1]} with groups of {group} in blocks of {size}"
        )
    # how many steps each block could take
    if nm is None:
        steps = live.view(len(live), -1, group).any(-1).sum(1)
    else:
        steps = (live.view(len(live), -1, nm[1]).sum(-1) - nm[0]).clamp_min(0).sum(1)
    deepest = int(steps.max()) if len(steps) else 0
    shape = (len(weights), deepest if depth is None else max(0, min(depth, deepest)))
    order = torch.full(shape, -1, dtype=torch.int16, device=weights.device)
    losses = torch.full(shape, torch.inf, dtype=weights.dtype, device=weights.device)
    floor = pivot_floor(inverse) if floor is None else floor
    kernels = kernels_for(weights.device, backend)
    kernels.eliminate(weights, inverse, floor, live, order, losses, limit, group, nm)
    return Elimination(order, losses, group, size)


def eliminate_cheapest(
    inverses: Sequence[BlockInverse],
    weights: Sequence[Tensor],
    steps: int | None,
    *,
    group: int = 1,
    nm: tuple[int, int] | None = None,
    backend: str = "auto",
    add_up: Callable[[int], int] = int,
    highest: Callable[[float], float] = float,
) -> list[Elimination]:
    """Eliminate just as far as it takes to know the cheapest steps of all weights together.

    The choice is that of eliminating everything, for less work: every block stops where its loss
    goes beyond what a sample of the blocks says can be chosen, and goes on if that was wrong.

    :param inverses: one per weight, or part of one
    :param weights: each in its own shape
    :param steps: how many weights (groups, for those of more than one) will be removed in all;
        None to look at all steps
    :param group: see :func:`eliminate`
    :param nm: see :func:`eliminate`
    :param add_up: over all that hold a part, where ``inverses`` are only a part of what is ranked
    :param highest: of all that hold a part
    """
    look = partial(eliminate, group=group, nm=nm, backend=backend)
    limit = float("inf")
    if steps is not None:
        # each estimates its share of the steps; the highest of the estimates bounds the loss
        mine = sum(int(i.live.view(len(i.live), -1, group).any(-1).sum()) for i in inverses)
        everyone = add_up(mine)
        share = -(-steps * mine // everyone) if everyone else 0
        limit = highest(loss_limit(inverses, weights, share, look) if share else 0.0)
    while True:
        found = [
            look(one.blocks_of(weight), one.inverse, one.live, floor=one.floor, limit=limit)
            for one, weight in zip(inverses, weights, strict=True)
        ]
        if steps is None or limit == float("inf"):
            return found
        if add_up(sum(int((one.losses <= limit).sum()) for one in found)) >= steps:
            return found
        limit = limit * 2 if limit > 0.0 else float("inf")


def loss_limit(
    inverses: Sequence[BlockInverse],
    weights: Sequence[Tensor],
    steps: int,
    look: Callable[..., Elimination] = eliminate,
) -> float:
    """Estimate from a sixteenth of the blocks how large the loss of a chosen step will be.

    :param inverses: of all weights that are ranked together
    :param weights: one per inverse, in its own shape
    :param steps: how many steps will be chosen
    :param look: :func:`eliminate`, with what is to be eliminated
    :return: the estimate with a margin; inf when all steps will be
    """
    losses, shares = [], []
    for inverse, weight in zip(inverses, weights, strict=True):
        rows = len(inverse.live)
        stride = max(1, min(_SAMPLED_SHARE, rows // _SAMPLED_BLOCKS))
        some = slice(stride // 2, None, stride)
        blocks = (inverse.blocks_of(weight)[some], inverse.inverse[some], inverse.live[some])
        sample = look(*blocks, floor=inverse.floor[some])
        finite = sample.losses[sample.order >= 0].double().cpu()
        losses.append(finite)
        # what each of the sampled blocks stands for
        shares.append(torch.full_like(finite, rows / max(1, len(sample.order))))
    order = torch.cat(losses).sort()
    reached = torch.cat(shares)[order.indices].cumsum(0) >= steps
    if not bool(reached.any()):
        return float("inf")
    return float(order.values[reached.nonzero()[0, 0]]) * _MARGIN
