"""Deciding what goes: scores, a pattern, a budget and a target become masks.

This is the only place where something is decided to go, so the rules live in one place, too: the
lowest units go; among equal scores earlier tensors and earlier units are kept; counts are exact in
weights; what is gone stays gone; a score that is not a number is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseml.pytorch.functional.budgets.base import FULL_TOLERANCE, Budget, Target
from sparseml.pytorch.functional.budgets.overlap import choose_overlapping
from sparseml.pytorch.functional.patterns.base import Pattern
from sparseml.pytorch.functional.patterns.units import Units
from sparseml.pytorch.functional.selection import require_numbers, require_sparsity


def select(
    scores: Sequence[Tensor],
    pattern: Pattern,
    budget: Budget,
    target: Target,
    *,
    live: Sequence[Tensor] | None = None,
    only: Sequence[int] | None = None,
    spread_ties: bool = False,
    names: Sequence[str] | None = None,
) -> list[Tensor]:
    """Prune what has the lowest scores.

    :param scores: a score per weight, higher = more important; one tensor per parameter, of its
        shape ``[out, in, *kernel]``
    :param pattern: what goes together
    :param budget: how much goes from where
    :param target: the fraction of weights to prune, one for all or one per tensor, in [0, 1]
    :param live: bool masks, on the scores' devices, of the weights that are still there. What is
        gone stays gone and counts as pruned, and units of which nothing is left go first
    :param only: positions of the tensors to decide about; ``target`` and ``budget`` speak of these.
        The masks of the others come back as in ``live``, or all True
    :param spread_ties: SparseML 1.x's rule for scores that equal the lowest of all, see
        :func:`~sparseml.pytorch.functional.selection.lowest_mask`. It does not hold for N:M, nor
        for budgets with limits
    :param names: of the tensors, for messages
    :return: bool masks of the shapes of ``scores``, True = keep
    :raises ValueError: for NaN scores, shapes that the pattern cannot cut, and targets that pattern
        and budget do not allow
    """
    if live is not None:
        _require_live(scores, live)
    chosen = list(range(len(scores))) if only is None else list(only)
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(len(scores))):
        raise ValueError(f"only names positions of {len(scores)} tensors once, found {chosen}")
    asked = _asked(target, len(scores), chosen, pattern)
    for place in chosen:
        require_numbers(scores[place], f"scores of {names[place]}" if names else "scores")
    some = [scores[place].detach() for place in chosen]
    some_live = None if live is None else [live[place] for place in chosen]
    if only is not None:
        pattern = pattern.among(chosen)
    pools = pattern.pools(some, some_live)
    if isinstance(pattern, Units) and pattern.overlap:
        shapes = [tensor.shape for tensor in some]
        keep = choose_overlapping(pattern, pools, budget, asked, shapes, some_live)
    else:
        filled = [pool for pool in pools if pool.weights]
        found = iter(budget.choose(filled, asked, spread_ties))
        # of an empty tensor nothing can go
        keep = [next(found) if p.weights else torch.ones_like(p.scores).bool() for p in pools]
    masks = pattern.masks(keep, some, some_live)
    if live is None and only is None:
        return masks
    kept = list(live or [torch.ones_like(tensor, dtype=torch.bool) for tensor in scores])
    for place, mask in zip(chosen, masks, strict=True):
        kept[place] = mask if live is None else mask & live[place]
    return kept


def check_selection(
    shapes: Sequence[Sequence[int]], pattern: Pattern, budget: Budget, target: Target
) -> None:
    """Check, from shapes alone, that :func:`select` can do what it will be asked.

    :param shapes: of the weights
    :raises ValueError: as :func:`select` would
    """
    asked = _asked(target, len(shapes), range(len(shapes)), pattern)
    pools = pattern.blank(shapes)
    if isinstance(pattern, Units) and pattern.overlap:
        choose_overlapping(pattern, pools, budget, asked, shapes)
    else:
        budget.check([pool for pool in pools if pool.weights], asked)


def _asked(target: Target, count: int, chosen: Sequence[int], pattern: Pattern) -> Target:
    """What the chosen tensors are asked for, one number where all are asked for the same."""
    each = [target] * count if isinstance(target, (int, float)) else target
    if len(each) != count:
        raise ValueError(f"{count} tensors, but {len(each)} target sparsities")
    full, goals = pattern.full_sparsity, [each[place] for place in chosen]
    for goal in goals:
        if not 0.0 <= goal <= 1.0:
            require_sparsity(goal)
        if goal > full + FULL_TOLERANCE:
            raise ValueError(
                f"{pattern} reaches a sparsity of {full:g} and no more, found {goal:g}"
            )
    if len(set(goals)) == 1:
        return min(goals[0], full)
    return [min(goal, full) for goal in goals]


def _require_live(scores: Sequence[Tensor], live: Sequence[Tensor]) -> None:
    if len(live) != len(scores):
        raise ValueError(f"{len(scores)} tensors, but {len(live)} masks of what is live")
    for place, (tensor, mask) in enumerate(zip(scores, live, strict=True)):
        if mask.dtype != torch.bool or mask.shape != tensor.shape:
            raise ValueError(
                f"live is bool of shape {tuple(tensor.shape)} for tensor {place}, found "
                f"{mask.dtype} of shape {tuple(mask.shape)}"
            )
