"""Filters or channels of several tensors that go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns.base import Pattern, Pool, Tensors, lowered
from sparseml.pytorch.functional.patterns.blocks import Slice
from sparseml.utils.text import few

GROUP_SCORES = ("sum", "matrices", "l2")
"""How a group's tensors are ranked together: by the sum of their scores, by that of matrices alone
(biases and the scales of norms, whose numbers are of another size, have no say), or by the root of
the sum of squares."""


@dataclass(frozen=True)
class Together(Pattern):
    """The same slices of all tensors of a group, by what their scores come to together.

    If in a group the dimension of one tensor is a multiple (the stride) of the smallest one, as
    where a convolution feeds a linear layer, each of the smallest one's slices stands for that many
    neighbours, by their mean. A tensor whose dimension has size 1 (a depthwise convolution's input)
    is left unmasked.

    :param slices: filters or channels
    :param groups: positions of the tensors that belong together; every other tensor is on its own
    :param score: one of :data:`GROUP_SCORES`
    :raises ValueError: for a tensor in two groups, and for another score
    """

    slices: Slice
    groups: tuple[tuple[int, ...], ...] = ()
    score: str = "sum"

    def __post_init__(self) -> None:
        if self.score not in GROUP_SCORES:
            raise ValueError(
                f"score must be one of {', '.join(GROUP_SCORES)}, found {self.score!r}"
            )
        listed = [place for group in self.groups for place in group]
        twice = {place for place in listed if listed.count(place) > 1}
        if twice:
            raise ValueError(f"each tensor is in one group, found {few(sorted(twice))} in several")

    def __str__(self) -> str:
        return str(self.slices)

    def check(self, shape: Sequence[int]) -> None:
        """Check that there is such a dimension."""
        self.slices.check(shape)

    def among(self, chosen: Sequence[int]) -> Together:
        """Return the pattern with the groups of these tensors.

        :raises ValueError: for a group of which only a part is chosen
        """
        places = {place: index for index, place in enumerate(chosen)}
        groups = [group for group in self.groups if places.keys() & set(group)]
        for group in groups:
            inside = [place for place in group if place in places]
            if len(inside) < len(group):
                raise ValueError(
                    f"tensors {few(group)} go together, but only {few(inside)} of them are chosen"
                )
        moved = tuple(tuple(places[place] for place in group) for group in groups)
        return Together(self.slices, moved, self.score)

    def pools(self, scores: Tensors, live: Tensors | None = None) -> list[Pool]:
        """One pool per group, one without units for each tensor that is left unmasked.

        :raises ValueError: for sizes in a group that are not multiples of the smallest
        """
        units = [self.slices.unit_scores(tensor) for tensor in scores]
        pools = []
        for group in self._groups(scores):
            shared = [units[place] for place in group]
            count = min(map(len, shared)) if len(shared[0]) > 1 else 0
            counting = [units[p] for p in group if scores[p].ndim > 1 or self.score != "matrices"]
            summed = shared[0][:0]
            if count:
                summed = _summed(counting or shared, count, squares=self.score == "l2")
            weights = sum(scores[place].numel() for place in group)
            shapes = tuple(tuple(scores[place].shape) for place in group)
            pool = Pool(group, summed, weights // max(count, 1), weights, shapes)
            if live is not None:
                there = torch.zeros_like(summed, dtype=torch.long)
                for place in group if count else ():
                    left = self.slices.live_size(live[place]).reshape(count, -1).sum(1)
                    there += left.to(there.device)
                pool = lowered(pool, there, weights - sum(int(live[p].sum()) for p in group))
            pools.append(pool)
        return pools

    def masks(self, keep: Tensors, scores: Tensors, live: Tensors | None = None) -> list[Tensor]:
        """Each decision for its slices in all tensors of the group."""
        masks = [torch.ones_like(tensor, dtype=torch.bool) for tensor in scores]
        for group, unit in zip(self._groups(scores), keep, strict=True):
            for place in group if len(unit) else ():
                tensor = scores[place]
                stride = tensor.shape[self.slices.dim] // len(unit)
                slices = unit.to(tensor.device).repeat_interleave(stride)
                masks[place] = self.slices.expand(slices, tensor)
        return masks

    def _groups(self, scores: Sequence[Tensor]) -> list[tuple[int, ...]]:
        """The groups of tensors that are masked alike, then the ones that are on their own."""
        dim = self.slices.dim
        for tensor in scores:
            self.slices.check(tensor.shape)
        wide = {place for place, tensor in enumerate(scores) if tensor.shape[dim] > 1}
        listed = {place for group in self.groups for place in group}
        found = [tuple(place for place in group if place in wide) for group in self.groups]
        alone: list[tuple[int, ...]] = [
            (place,) for place in range(len(scores)) if place not in listed & wide
        ]
        return sorted([group for group in found if group] + alone)


def _summed(units: list[Tensor], smallest: int, squares: bool = False) -> Tensor:
    sizes = [unit.numel() for unit in units]
    if any(size % smallest for size in sizes):
        raise ValueError(
            f"tensors that are masked alike must have sizes that are multiples of the smallest, "
            f"found {sizes}"
        )
    if len(units) == 1 and sizes[0] == smallest:
        return units[0]
    rows = [unit.reshape(smallest, -1).to(units[0].device) for unit in units]
    if squares:
        return torch.cat(rows, dim=1).norm(dim=1)
    return torch.stack([row.mean(dim=1) for row in rows]).sum(dim=0)
