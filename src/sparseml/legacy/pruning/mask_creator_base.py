"""Turning scores and a target sparsity into masks: the base class and single weights."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sparseml.pytorch.functional.selection import lowest_mask

__all__ = [
    "Budget",
    "ConstantMaskCreator",
    "PruningMaskCreator",
    "Target",
    "UnstructuredPruningMaskCreator",
]

Target = float | list[float]
"""A sparsity for all tensors, or one for each."""

Budget = Callable[[Sequence[Tensor], Target], list[int]]
"""Given the unit scores of each tensor and the target: how many units to prune in each."""

_SEED = 42
_MOST_SHUFFLED = 1_000_000


class PruningMaskCreator(ABC):
    """Makes masks (1 = keep, 0 = prune) that prune what has the lowest scores."""

    fixed_sparsity: float | None = None
    """The one sparsity that finished masks of this kind have, None when they can have any."""

    @abstractmethod
    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """Masks for several tensors of scores.

        :param tensors: scores, any shapes, higher = more important
        :param target: fraction to prune, one float for all or a list with one for each
        :param global_sparsity: rank the entries of all tensors together
        :return: a mask per tensor, of its shape and dtype
        """

    def create_parameter_masks(
        self,
        tensors: list[Tensor],
        target: Target,
        global_sparsity: bool = False,
        budget: Budget | None = None,
    ) -> list[Tensor]:
        """Masks ready to be multiplied with the parameters that the scores belong to.

        This is what pruning modifiers call. It differs from :meth:`create_sparsity_masks` only in
        classes that say so.

        :param budget: decides how many units go in each tensor, instead of the target alone
        :raises ValueError: when this class cannot follow a budget
        """
        if budget is not None:
            return self._masks_within(tensors, target, budget)
        return self._parameter_masks(tensors, target, global_sparsity)

    def _masks_within(self, tensors: list[Tensor], target: Target, budget: Budget) -> list[Tensor]:
        raise ValueError(f"{type(self).__name__} cannot prune within limits per parameter")

    def _parameter_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool
    ) -> list[Tensor]:
        return self.create_sparsity_masks(tensors, target, global_sparsity)


class UnstructuredPruningMaskCreator(PruningMaskCreator):
    """Prunes single entries, exactly ``round(numel * sparsity)`` of them.

    Among entries equal to the threshold the first are kept. When the threshold is the lowest score
    of all (typically that of weights that are zero already), the pruned ones are drawn from the
    entries with that score in an order shuffled with a fixed seed, as SparseML 1.x does. Any budget
    can be followed, ties by position.
    """

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target, global_sparsity: bool = False
    ) -> list[Tensor]:
        """As in the base class; a sparsity of at most 0 or above 1 prunes nothing.

        :raises TypeError: for a target that is neither a float nor a list
        :raises ValueError: for as many targets as there are not tensors, for differing targets with
            ``global_sparsity``, and for scores that are NaN
        """
        targets = one_target_each(target, len(tensors))
        if not tensors:
            return []
        units = self._units(tensors)
        if global_sparsity:
            keep = split_like(_keep(join_units(units), common_target(targets)), units)
        else:
            keep = [_keep(unit, sparsity) for unit, sparsity in zip(units, targets, strict=True)]
        return self._masks(keep, tensors)

    def _masks_within(self, tensors: list[Tensor], target: Target, budget: Budget) -> list[Tensor]:
        units = self._units(tensors)
        counts = budget(units, target)
        keep = [lowest_mask(unit, count) for unit, count in zip(units, counts, strict=True)]
        return self._masks(keep, tensors)

    def _units(self, tensors: list[Tensor]) -> list[Tensor]:
        """The scores of what is pruned as a whole."""
        return [tensor.detach() for tensor in tensors]

    def _masks(self, keep: list[Tensor], tensors: list[Tensor]) -> list[Tensor]:
        """Masks of a decision (bool) per unit."""
        return [unit.to(tensor.dtype) for unit, tensor in zip(keep, tensors, strict=True)]


class ConstantMaskCreator(PruningMaskCreator):
    """Keeps what is not zero, whatever the target."""

    def create_sparsity_masks(
        self, tensors: list[Tensor], target: Target | None = None, global_sparsity: bool = False
    ) -> list[Tensor]:
        """1 where a value is not zero, 0 where it is."""
        return [tensor.detach().ne(0).to(tensor.dtype) for tensor in tensors]


def common_target(targets: list[float]) -> float:
    """The one target that global sparsity has.

    :raises ValueError: when the targets differ
    """
    if len(set(targets)) > 1:
        raise ValueError(
            f"global sparsity has one target, found different ones: {sorted(set(targets))}"
        )
    return targets[0]


def one_target_each(target: Target, count: int) -> list[float]:
    """A target for each of ``count`` tensors.

    :raises TypeError: for a target that is neither a float nor a list
    :raises ValueError: for a list of another length
    """
    if isinstance(target, float):
        return [target] * count
    if not isinstance(target, (list, tuple)):
        raise TypeError(
            f"target must be a float or a list of floats, found {type(target).__name__} {target!r}"
        )
    if len(target) != count:
        raise ValueError(f"{count} tensors, but {len(target)} target sparsities")
    return list(target)


def join_units(tensors: list[Tensor]) -> Tensor:
    """All scores in one vector, on the first tensor's device, in a dtype that holds them all."""
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    dtype = tensors[0].dtype if len({t.dtype for t in tensors}) == 1 else wide
    return torch.cat([tensor.reshape(-1).to(tensors[0].device, dtype) for tensor in tensors])


def split_like(flat: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    """Undo :func:`join_units` for a decision per unit."""
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [
        piece.reshape(tensor.shape).to(tensor.device)
        for piece, tensor in zip(pieces, tensors, strict=True)
    ]


def _keep(scores: Tensor, sparsity: float) -> Tensor:
    if not 0.0 < sparsity <= 1.0 or scores.numel() == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    count = round(scores.numel() * sparsity)
    keep = lowest_mask(scores, count)
    lowest = scores.reshape(-1) == scores.min()
    if count >= int(lowest.sum()):
        return keep
    keep = torch.ones_like(lowest)
    keep[_shuffled(lowest.nonzero()[:, 0])[:count]] = False
    return keep.reshape(scores.shape)


def _shuffled(indices: Tensor) -> Tensor:
    if indices.numel() > _MOST_SHUFFLED:
        # a Python list of so many would take minutes
        generator = torch.Generator().manual_seed(_SEED)
        order = torch.randperm(indices.numel(), generator=generator)
        return indices[order.to(indices.device)]
    listed = indices.tolist()
    random.Random(_SEED).shuffle(listed)
    return torch.tensor(listed, dtype=torch.long, device=indices.device)
