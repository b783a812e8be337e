"""Choosing the weights to eliminate without looking deeper than the choice can reach."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseml.pytorch.functional.block_inverse import BlockInverse
from sparseml.pytorch.functional.elimination import Elimination, eliminate, prefix_counts

__all__ = ["eliminate_cheapest", "loss_limit"]

_SAMPLED_BLOCKS = 64
_SAMPLED_SHARE = 16
_MARGIN = 1.25


def loss_limit(
    inverses: Sequence[BlockInverse],
    weights: Sequence[Tensor],
    steps: int,
    *,
    nm: tuple[int, int] | None = None,
    blocks: bool = False,
    backend: str = "auto",
) -> float:
    """Estimate from a sixteenth of the blocks how large the loss of a chosen step will be.

    :param inverses: of all weights that are ranked together
    :param weights: one per inverse, in its own shape
    :param steps: how many steps will be chosen
    :return: the estimate with a margin; inf when all steps will be
    """
    samples = []
    for inverse, weight in zip(inverses, weights, strict=True):
        rows = len(inverse.live)
        stride = max(1, min(_SAMPLED_SHARE, rows // _SAMPLED_BLOCKS))
        some = slice(stride // 2, None, stride)
        samples.append(
            eliminate(
                inverse.blocks_of(weight)[some],
                inverse.inverse[some],
                inverse.live[some],
                group=inverse.layout.group if blocks else 1,
                nm=nm,
                floor=inverse.floor[some],
                backend=backend,
            )
        )
    return _limit(samples, [len(i.live) for i in inverses], steps)


def _limit(samples: list[Elimination], rows: list[int], steps: int) -> float:
    """The loss below which the sampled blocks, weighted by what they stand for, hold ``steps``."""
    losses, shares = [], []
    for sample, count in zip(samples, rows, strict=True):
        finite = sample.losses[sample.order >= 0].double().cpu()
        losses.append(finite)
        shares.append(torch.full_like(finite, count / max(1, len(sample.order))))
    order = torch.cat(losses).sort()
    reached = torch.cat(shares)[order.indices].cumsum(0) >= steps
    if not bool(reached.any()):
        return float("inf")
    return float(order.values[reached.nonzero()[0, 0]]) * _MARGIN


def eliminate_cheapest(
    inverses: Sequence[BlockInverse],
    weights: Sequence[Tensor],
    steps: int,
    *,
    nm: tuple[int, int] | None = None,
    blocks: bool = False,
    backend: str = "auto",
) -> list[Tensor]:
    """The weights to remove from each tensor: the cheapest ``steps`` steps, ranked together.

    The same choice as that of eliminating everything, for less work: every block stops where its
    loss goes beyond what a sample of the blocks says can be chosen, and goes on if that was wrong.

    :param inverses: one per weight
    :param weights: each in its own shape
    :param steps: how many weights (groups, with ``blocks``) to remove in all
    :param nm: see :func:`~sparseml.pytorch.functional.elimination.eliminate`
    :param blocks: remove whole groups of the layouts
    :return: per weight the entries to remove, bool ``[R, B]``, for
        :meth:`~sparseml.pytorch.functional.block_inverse.BlockInverse.update`
    :raises ValueError: for more steps than there are
    """
    limit = loss_limit(inverses, weights, steps, nm=nm, blocks=blocks, backend=backend)
    while True:
        found = [
            inverse.eliminate(weight, limit=limit, nm=nm, blocks=blocks, backend=backend)
            for inverse, weight in zip(inverses, weights, strict=True)
        ]
        within = sum(int((e.losses <= limit).sum()) for e in found)
        if within >= steps or limit == float("inf"):
            break
        limit = limit * 2 if limit > 0.0 else float("inf")
    counts = prefix_counts(found, steps)
    return [e.pruned(count) for e, count in zip(found, counts, strict=True)]
