"""Choosing exactly k entries of a tensor by their scores, by the rules of :mod:`.select`."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_SEED = 42
_MOST_SHUFFLED = 1_000_000


def require_sparsity(value: float, name: str = "sparsity") -> None:
    """Check that ``value`` is a fraction.

    :raises ValueError: naming ``name``, when ``value`` is outside [0, 1] or not a number
    """
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is a fraction between 0 and 1, found {value!r}")


def require_numbers(scores: Tensor, name: str = "scores") -> None:
    """Check that no entry is NaN; infinities are fine, they rank first or last.

    :raises ValueError: naming ``name`` and how many entries are NaN
    """
    if not scores.is_floating_point() or not scores.sum().isnan():
        return  # a sum that is NaN may still come of infinities of both signs
    missing = scores.isnan()
    if missing.any():
        bad = int(missing.sum())
        raise ValueError(f"{name}: {bad} of {scores.numel()} values are NaN, so they have no order")


def prune_count(size: int, sparsity: float) -> int:
    """How many of ``size`` entries are pruned at ``sparsity``: the nearest integer, .5 to even.

    :raises ValueError: for a sparsity outside [0, 1]
    """
    require_sparsity(sparsity)
    return round(size * sparsity)


def lowest_mask(scores: Tensor, count: int, *, spread_ties: bool = False) -> Tensor:
    """Prune the ``count`` entries with the lowest scores.

    Among equal scores the first entries in row-major order are kept, so the result depends on
    nothing but the scores, and the count is exact.

    :param scores: any shape, any floating or integer dtype
    :param count: how many entries to prune, 0 to numel
    :param spread_ties: where more entries have the lowest score of all than are pruned (typically
        weights that are zero already), draw the pruned ones by :func:`shuffled`, as SparseML 1.x
    :return: bool, shape and device of ``scores``; True = keep, exactly ``count`` are False
    :raises ValueError: for NaN scores or a count out of range
    """
    if not 0 <= count <= scores.numel():
        raise ValueError(f"cannot prune {count} of {scores.numel()} entries")
    require_numbers(scores)
    if count in (0, scores.numel()):
        return torch.full_like(scores, count == 0, dtype=torch.bool)
    flat = scores.detach().reshape(-1)
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        # introselect: several times faster than kthvalue, which carries the indices along
        lowest = np.partition(flat.numpy(), count - 1)[count - 1 : count]
        threshold = torch.from_numpy(lowest)[0]
    else:
        threshold = flat.kthvalue(count).values
    keep = flat > threshold
    ties_to_keep = scores.numel() - count - int(keep.sum())
    if ties_to_keep:
        ties = (flat == threshold).nonzero()[:, 0]
        if spread_ties and len(ties) == count + ties_to_keep:  # nothing is below
            ties = shuffled(ties)[count:]
        keep[ties[:ties_to_keep]] = True
    return keep.reshape(scores.shape)


def partly(
    now: Sequence[Tensor], goal: Sequence[Tensor], scores: Sequence[Tensor], count: int
) -> list[Tensor]:
    """Prune ``count`` of the entries that are kept now and will not be: the lowest of all tensors.

    :param now: bool masks, True = keep
    :param goal: where they lead
    :param scores: of each entry
    :return: masks in which nothing is back that is pruned now
    """
    leaving = [mask & ~after for mask, after in zip(now, goal, strict=True)]
    flat = joined([each[go] for each, go in zip(scores, leaving, strict=True)])
    sizes = [int(go.sum()) for go in leaving]
    stays = lowest_mask(flat, count).split(sizes)
    return [
        mask.masked_scatter(go, part.to(mask.device))
        for mask, go, part in zip(now, leaving, stays, strict=True)
    ]


def rearranged(kept: Tensor, gradients: Tensor, fixed: Tensor | None = None) -> Tensor:
    r"""Exchange pruned units for kept ones as long as the pruned ones together matter less.

    Kwon et al., "A fast post-training pruning framework for Transformers" (2022), section 4.2: to
    second order the loss grows with :math:`\lVert \sum_{u\ \text{pruned}} g_u \rVert^2`, where
    :math:`g_u` are the gradients of unit u's mask over the batches. The kept units are tried in the
    order of rising :math:`\lVert g_u \rVert^2`: each joins the pruned ones, and the one without
    which the norm of their sum is least becomes kept.

    :param kept: bool ``[units]``, True = keep
    :param gradients: of the masks, ``[batches, units]``
    :param fixed: bool ``[units]``, pruned units that stay so
    :return: bool ``[units]``, as many True as in ``kept``
    """
    vectors = gradients.double()
    squares = vectors.square().sum(0)
    pruned, movable = ~kept, torch.ones_like(kept) if fixed is None else ~fixed
    if not bool((pruned & movable).any()):
        return kept
    total = vectors[:, pruned].sum(1)
    tried = kept.nonzero()[:, 0]
    for unit in tried[squares[tried].argsort(stable=True)].tolist():
        pruned[unit] = True
        total = total + vectors[:, unit]
        # the norm of the sum without each, but for what is common to all
        without = squares - 2.0 * (total @ vectors)
        back = int(without.masked_fill(~(pruned & movable), torch.inf).argmin())
        pruned[back] = False
        total = total - vectors[:, back]
    return ~pruned


def shuffled(positions: Tensor) -> Tensor:
    """Return positions in an order that depends on nothing but how many there are.

    It is that of ``random.Random(42).shuffle``, beyond a million that of ``torch.randperm``.

    :param positions: int64, one dimension
    """
    if len(positions) > _MOST_SHUFFLED:
        # a Python list of so many would take minutes
        generator = torch.Generator().manual_seed(_SEED)
        order = torch.randperm(len(positions), generator=generator)
        return positions[order.to(positions.device)]
    listed = positions.tolist()
    random.Random(_SEED).shuffle(listed)
    return torch.tensor(listed, dtype=torch.long, device=positions.device)


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """All values in one vector, on the first tensor's device, in a dtype that holds them all."""
    if len(tensors) == 1:
        return tensors[0].reshape(-1)
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    dtype = tensors[0].dtype if len({t.dtype for t in tensors}) == 1 else wide
    return torch.cat([tensor.reshape(-1).to(tensors[0].device, dtype) for tensor in tensors])


def split_like(flat: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Undo :func:`joined` for a decision per value; each has memory of its own."""
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [
        piece.reshape(tensor.shape).to(tensor.device, copy=True)
        for piece, tensor in zip(pieces, tensors, strict=True)
    ]
