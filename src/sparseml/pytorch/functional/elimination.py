r"""CAP: removing weights one after another, always the one that costs least next.

Per block, from the inverse Fisher matrix H and weights w (Kuznedelev et al., "CAP:
Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models", 2023, algorithm 1):

.. math:: p = \arg\min_i \frac{w_i^2}{H_{ii}}, \qquad
          w \leftarrow w - H_{:,p} \frac{w_p}{H_{pp}}, \qquad
          H \leftarrow H - \frac{H_{:,p} H_{p,:}}{H_{pp}}

repeated among the weights that are left. Only the order and the cumulative losses are kept:
removing the first k weights of the order one by one ends where removing them jointly does
(:func:`~sparseml.pytorch.functional.obs.joint_update`), so the weights of any sparsity follow
from the order and the original H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.functional.kernels import EliminationRule, kernels_for
from sparseml.pytorch.functional.obs import pivot_floor, require_blocks

__all__ = ["Elimination", "eliminate", "prefix_counts"]

_LARGEST_BLOCK = torch.iinfo(torch.int16).max


@dataclass(frozen=True)
class Elimination:
    """In which order the groups of each block go, and what that costs.

    :param order: int16, ``[R, depth]``: index within the block of the group (of the weight, for
        groups of one) removed at each step; -1 after the last step that was looked at
    :param losses: ``[R, depth]``: increase of the loss by all steps so far, never falling along a
        block; inf where ``order`` is -1
    :param available: ``[R]``: how many steps each block could have taken
    :param group: weights per group
    :param block_size: weights per block
    """

    order: Tensor
    losses: Tensor
    available: Tensor
    group: int
    block_size: int

    @property
    def steps(self) -> Tensor:
        """How many steps of each block were looked at, ``[R]``."""
        return (self.order >= 0).sum(1)

    def pruned(self, counts: Tensor) -> Tensor:
        """The weights that the first ``counts`` steps of each block remove.

        :param counts: ``[R]``
        :return: bool, ``[R, block_size]``; True = pruned
        :raises ValueError: for more steps than were looked at
        """
        if bool((counts > self.steps).any()):
            raise ValueError("more steps are asked for than the elimination has looked at")
        depth = self.order.shape[1]
        taken = torch.arange(depth, device=counts.device) < counts.unsqueeze(1)
        groups = self.block_size // self.group
        # steps that are not taken fall into an extra place that is cut off
        place = torch.where(taken, self.order.long(), groups)
        gone = torch.zeros(len(counts), groups + 1, dtype=torch.bool, device=counts.device)
        gone.scatter_(1, place, True)
        return gone[:, :groups].repeat_interleave(self.group, dim=1)

    def scores(self) -> Tensor:
        """The losses as a score per weight: pruning the lowest k takes the cheapest prefixes.

        :return: ``[R, block_size]``; inf for weights whose removal was not looked at
        """
        groups = self.block_size // self.group
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
    :param backend: see :func:`~sparseml.pytorch.functional.kernels.kernels_for`
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
    available = _available(live, group, nm)
    deepest = int(available.max()) if len(available) else 0
    rule = EliminationRule(
        depth=deepest if depth is None else max(0, min(depth, deepest)),
        limit=limit,
        group=group,
        nm=nm,
    )
    kernels = kernels_for(weights.device, backend)
    order, losses = kernels.eliminate(weights, inverse, pivot_floor(inverse, floor), live, rule)
    return Elimination(order, losses, available, group, size)


def _available(live: Tensor, group: int, nm: tuple[int, int] | None) -> Tensor:
    """How many steps each block can take."""
    rows = len(live)
    if nm is None:
        return live.view(rows, -1, group).any(-1).sum(1)
    left = live.view(rows, -1, nm[1]).sum(-1)
    return (left - nm[0]).clamp_min(0).sum(1)


def prefix_counts(eliminations: Sequence[Elimination], steps: int) -> list[Tensor]:
    """Choose the cheapest ``steps`` steps of several eliminations, ranked together.

    Losses are cumulative, so within a block the cheapest steps are always its first ones. Among
    equal losses the steps of earlier eliminations and earlier blocks are kept. Give one elimination
    for a uniform sparsity, those of all weights for a global one.

    :param steps: how many groups (weights, for groups of one) to remove in all
    :return: per elimination how many steps to take in each block, ``[R]``
    :raises ValueError: for more steps than there are, or than have been looked at
    """
    available = sum(int(e.available.sum()) for e in eliminations)
    looked_at = sum(int(e.steps.sum()) for e in eliminations)
    if not 0 <= steps <= available:
        raise ValueError(f"cannot remove {steps} of {available} groups")
    if steps > looked_at:
        raise ValueError(f"{steps} steps are asked for, but only {looked_at} have been looked at")
    if steps == 0:
        return [torch.zeros_like(e.available) for e in eliminations]
    threshold = _threshold(eliminations, steps)
    below = [_count(e, threshold, right=False) for e in eliminations]
    within = [_count(e, threshold, right=True) for e in eliminations]
    for elimination, counts in zip(eliminations, within, strict=True):
        _require_looked_at(elimination, counts)
    spare = sum(int(counts.sum()) for counts in within) - steps
    chosen = []
    for least, most in zip(below, within, strict=True):
        ties = most - least
        kept = torch.minimum(ties, (spare - (ties.cumsum(0) - ties)).clamp_min(0))
        spare -= int(kept.sum())
        chosen.append(most - kept)
    return chosen


def _threshold(eliminations: Sequence[Elimination], steps: int) -> float:
    """The ``steps``-th smallest loss, by bisection over the bit patterns of floats.

    Non-negative floats are ordered as their bits are, so this is exact, and needs no copy of the
    losses, on whatever devices they are.
    """
    wide = any(e.losses.dtype == torch.float64 for e in eliminations)
    number, bits = (torch.float64, torch.int64) if wide else (torch.float32, torch.int32)
    low, high = -1, int(torch.tensor(torch.finfo(number).max, dtype=number).view(bits))
    while high - low > 1:
        middle = (low + high) // 2
        value = float(torch.tensor(middle, dtype=bits).view(number))
        enough = sum(int(_count(e, value, right=True).sum()) for e in eliminations) >= steps
        low, high = (low, middle) if enough else (middle, high)
    return float(torch.tensor(high, dtype=bits).view(number))


def _count(elimination: Elimination, value: float, *, right: bool) -> Tensor:
    """How many losses of each block are below ``value`` (``right``: or equal to it), ``[R]``."""
    losses = elimination.losses
    bound = torch.full((len(losses), 1), value, dtype=losses.dtype, device=losses.device)
    return torch.searchsorted(losses, bound, right=right).squeeze(1)


def _require_looked_at(elimination: Elimination, counts: Tensor) -> None:
    steps = elimination.steps
    shallow = (counts == steps) & (steps < elimination.available)
    if bool(shallow.any()):
        raise ValueError(
            f"{int(shallow.sum())} blocks would lose more weights than the elimination has looked "
            "at; it needs a greater depth or limit"
        )
