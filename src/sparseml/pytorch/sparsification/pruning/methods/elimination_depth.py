"""Eliminating weights just as far as the targets can reach, on all ranks alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from sparseml.pytorch.functional.block_layout import BlockLayout
from sparseml.pytorch.functional.cheapest import loss_limit
from sparseml.pytorch.functional.elimination import Elimination
from sparseml.pytorch.functional.kernels import exact_arithmetic
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.sparsification.pruning.methods.block_rule import BlockRule
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import Held
from sparseml.pytorch.sparsification.pruning.methods.method import Problem
from sparseml.pytorch.sparsification.pruning.sampling.shards import Piece
from sparseml.pytorch.utils.distributed import add_up, is_distributed, transfer_device

__all__ = ["eliminated"]


def eliminated(
    problem: Problem,
    indices: Sequence[int],
    held: Held,
    layouts: Sequence[BlockLayout],
    rule: BlockRule,
    targets: Sequence[Sequence[float]],
    complete: bool,
) -> list[tuple[Piece, Tensor]]:
    """Cumulative losses as scores, of the pieces held here.

    :param indices: the weights that are decided on now
    :param complete: whether the ranks hold all that is ranked together, so that it is known how far
        to look
    :return: pieces with scores ``[R, B]``; inf where weights were not reached
    """
    scores = []
    # every rank goes through all of them, whatever it holds: they exchange how far to look
    for ranked in [list(indices)] if problem.budget.joint else [[index] for index in indices]:
        own = [(piece, inverse) for piece, inverse in held if piece.index in ranked]
        steps = None
        if complete and rule.nm is None:
            steps = max(_steps(ranked, layouts, problem.live, rule, t) for t in targets)
        for (piece, _), found in zip(
            own, _eliminate(own, problem.weights, rule, steps), strict=True
        ):
            scores.append((piece, found.scores()))
    return scores


def _steps(
    indices: Sequence[int],
    layouts: Sequence[BlockLayout],
    live: Sequence[Tensor],
    rule: BlockRule,
    target: Sequence[float],
) -> int:
    """How many groups are to be removed in addition to those that are gone."""
    units = present = 0
    for index in indices:
        layout, group = layouts[index], rule.together
        units += int(_any_in_group(layout.places(), group).sum())
        present += int(_any_in_group(layout.to_blocks(live[index].cpu()), group).sum())
    return max(0, prune_count(units, target[indices[0]]) - (units - present))


def _any_in_group(blocks: Tensor, group: int) -> Tensor:
    return blocks.view(len(blocks), -1, group).any(-1)


def _eliminate(
    own: Held, params: Sequence[Tensor], rule: BlockRule, steps: int | None
) -> list[Elimination]:
    limit = float("inf") if steps is None else _limit(own, params, rule, steps)
    while True:
        found = []
        for piece, inverse in own:
            with exact_arithmetic(inverse.inverse.device):
                found.append(
                    inverse.eliminate(
                        params[piece.index], limit=limit, nm=rule.nm, blocks=rule.together > 1
                    )
                )
        if limit == float("inf") or steps is None:
            return found
        within = sum(int((one.losses <= limit).sum()) for one in found)
        if _everyones(within) >= steps:
            return found
        limit = limit * 2 if limit > 0.0 else float("inf")


def _limit(own: Held, params: Sequence[Tensor], rule: BlockRule, steps: int) -> float:
    """A loss that the chosen steps will hardly exceed, the same on all ranks.

    Each rank estimates it for its part of the steps; the highest of these bounds the loss for all.
    """
    mine = sum(int(_any_in_group(inverse.live, rule.together).sum()) for _, inverse in own)
    everyone = _everyones(mine)
    share = -(-steps * mine // everyone) if everyone else 0
    limit = 0.0
    if share:
        limit = loss_limit(
            [inverse for _, inverse in own],
            [params[piece.index] for piece, _ in own],
            share,
            blocks=rule.together > 1,
        )
    if is_distributed():
        highest = torch.tensor(limit, dtype=torch.float64, device=transfer_device())
        dist.all_reduce(highest, op=dist.ReduceOp.MAX)
        limit = float(highest)
    return limit


def _everyones(number: int) -> int:
    return int(add_up(torch.tensor(number)))
