"""Units that span several tensors: heads, neurons, channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns.base import (
    REDUCTIONS,
    Pattern,
    Pool,
    Tensors,
    lowered,
    reduce_dims,
    shape_text,
)
from sparseml.utils.text import few


@dataclass(frozen=True, eq=False)
class Member:
    """What a tensor gives to a group of units.

    :param tensor: the tensor's position
    :param dim: the dimension whose slices belong to units
    :param units: the unit of each slice, -1 for a slice of none; integers of shape ``[size]``
    """

    tensor: int
    dim: int
    units: Tensor


@dataclass(frozen=True)
class Units(Pattern):
    """Groups of units; a unit goes with all its slices in all tensors of its group.

    A tensor may be in several groups, as where its rows are one layer's heads and its columns
    another's channels. Tensors in no group are left as they are.

    :param groups: the members of each group
    :param reduce: how the scores of a unit's weights are summed up
    :param given: a score per unit for each group, in place of what those of weights come to
    :raises ValueError: for an unknown ``reduce``, or units that are not numbered from 0 on
    """

    groups: tuple[tuple[Member, ...], ...]
    reduce: str = "mean"
    given: tuple[Tensor, ...] | None = field(default=None, compare=False)
    counts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.reduce not in REDUCTIONS:
            raise ValueError(f"reduce must be one of {REDUCTIONS}, found {self.reduce!r}")
        counts = []
        for number, group in enumerate(self.groups):
            maps = [member.units.reshape(-1).cpu() for member in group]
            found = torch.cat(maps).unique() if maps else torch.empty(0)
            found = found[found >= 0]
            counts.append(len(found))
            if found.tolist() != list(range(len(found))):
                raise ValueError(
                    f"the units of a group are numbered from 0 on, found {found.tolist()[:5]} ... "
                    f"in group {number}"
                )
        object.__setattr__(self, "counts", tuple(counts))

    def __str__(self) -> str:
        return "units"

    @property
    def overlap(self) -> bool:
        """Whether some weights belong to units of two groups, or twice to one group."""
        places = [member.tensor for group in self.groups for member in group]
        return len(set(places)) < len(places)

    def among(self, chosen: Sequence[int]) -> Units:
        """Return the groups of these tensors.

        :raises ValueError: for a group of which only a part is chosen
        """
        places = {place: index for index, place in enumerate(chosen)}
        groups, given = [], []
        for number, group in enumerate(self.groups):
            inside = {member.tensor for member in group} & places.keys()
            if inside and any(member.tensor not in places for member in group):
                raise ValueError(
                    f"the tensors of group {number} go together, but only {few(sorted(inside))} of "
                    "them are chosen"
                )
            if inside:
                groups.append(tuple(Member(places[m.tensor], m.dim, m.units) for m in group))
                given += [] if self.given is None else [self.given[number]]
        return Units(tuple(groups), self.reduce, None if self.given is None else tuple(given))

    def pools(self, scores: Tensors, live: Tensors | None = None) -> list[Pool]:
        """One pool per group.

        :raises ValueError: for a member without its tensor, or a dimension of its size
        """
        return [self._pool(number, scores, live) for number in range(len(self.groups))]

    def masks(self, keep: Tensors, scores: Tensors, live: Tensors | None = None) -> list[Tensor]:
        """Keep the weights of which no unit goes."""
        masks = [torch.ones_like(tensor, dtype=torch.bool) for tensor in scores]
        for group, unit in zip(self.groups, keep, strict=True):
            for member in group:
                mask = masks[member.tensor]
                shape = [1] * mask.ndim
                shape[member.dim] = -1
                mask &= _slices(member, unit.to(mask.device)).reshape(shape)
        return masks

    def pruned(
        self, keep: Sequence[Tensor], shapes: Sequence[Sequence[int]], live: Sequence[Tensor] | None
    ) -> list[int]:
        """Count the weights of each tensor that are not kept, without making masks.

        :param keep: as for :meth:`masks`
        :param live: what was there before; None: all
        """
        kept: list[dict[int, Tensor]] = [{} for _ in shapes]
        for group, unit in zip(self.groups, keep, strict=True):
            for member in group:
                slices = _slices(member, unit.cpu())
                others = kept[member.tensor].get(member.dim)
                kept[member.tensor][member.dim] = slices if others is None else others & slices
        return [
            torch.Size(shape).numel() - _kept(shape, dims, None if live is None else live[place])
            for place, (shape, dims) in enumerate(zip(shapes, kept, strict=True))
        ]

    def _pool(self, number: int, scores: Sequence[Tensor], live: Sequence[Tensor] | None) -> Pool:
        group, count = self.groups[number], self.counts[number]
        for member in group:
            _require_fit(member, scores)
        places = tuple(dict.fromkeys(member.tensor for member in group))
        weights = sum(scores[place].numel() for place in places)
        shapes = tuple(tuple(scores[place].shape) for place in places)
        sizes = torch.zeros(count + 1, dtype=torch.long)
        left = torch.zeros_like(sizes)
        for member in group:
            shape = scores[member.tensor].shape
            each = torch.full((shape[member.dim],), shape.numel() // max(shape[member.dim], 1))
            _gather(sizes, member, each)
            if live is not None:
                _gather(left, member, _reduced(live[member.tensor], member.dim, "sum"))
        sizes, left = sizes[:count], left[:count]
        if self.given is None:
            unit_scores = self._scores(group, scores, sizes)
        else:
            unit_scores = self.given[number].to(scores[group[0].tensor].device)
        size: int | Tensor = sizes
        if count and bool((sizes == sizes[0]).all()):
            size = int(sizes[0])
        pool = Pool(places, unit_scores, size, weights, shapes)
        if live is None:
            return pool
        lost = weights - sum(int(live[place].sum()) for place in places)
        return lowered(pool, left.to(unit_scores.device), lost)

    def _scores(self, group: tuple[Member, ...], scores: Sequence[Tensor], sizes: Tensor) -> Tensor:
        wide = any(scores[member.tensor].dtype == torch.float64 for member in group)
        dtype = torch.float64 if wide else torch.float32
        fills = {"max": -torch.inf, "min": torch.inf}
        # on the CPU, where sums have one order
        total = torch.full((len(sizes) + 1,), fills.get(self.reduce, 0.0), dtype=dtype)
        each = {"mean": "sum"}.get(self.reduce, self.reduce)
        for member in group:
            part = _reduced(scores[member.tensor].detach(), member.dim, each).to(total)
            _gather(total, member, part**2 if each == "l2" else part, each)
        total = total[:-1]
        if self.reduce == "mean":
            total = total / sizes.clamp_min(1)
        elif self.reduce == "l2":
            total = total.sqrt()
        return total.to(scores[group[0].tensor].device)


def _require_fit(member: Member, scores: Sequence[Tensor]) -> None:
    if not 0 <= member.tensor < len(scores):
        raise ValueError(f"a group has tensor {member.tensor}, but there are {len(scores)}")
    shape = scores[member.tensor].shape
    if not 0 <= member.dim < len(shape) or shape[member.dim] != member.units.numel():
        raise ValueError(
            f"units along dimension {member.dim} of tensor {member.tensor} are given for "
            f"{member.units.numel()} slices, but it has {shape_text(shape)}"
        )


def _reduced(values: Tensor, dim: int, reduce: str) -> Tensor:
    return reduce_dims(values, tuple(d for d in range(values.ndim) if d != dim), reduce)


def _gather(total: Tensor, member: Member, slices: Tensor, reduce: str = "sum") -> None:
    """Add what each slice has to its unit; the last place is for slices of none."""
    units = member.units.reshape(-1).to(total.device, torch.long)
    units = torch.where(units < 0, len(total) - 1, units)
    how = {"max": "amax", "min": "amin"}.get(reduce, "sum")
    total.scatter_reduce_(0, units, slices.to(total), how)


def _slices(member: Member, keep: Tensor) -> Tensor:
    """Whether each slice's unit is kept; slices of no unit are."""
    units = member.units.reshape(-1).to(keep.device, torch.long)
    if not len(keep):
        return torch.ones_like(units, dtype=torch.bool)
    return keep[units.clamp_min(0)] | (units < 0)


def _kept(shape: Sequence[int], dims: dict[int, Tensor], live: Tensor | None) -> int:
    """How many weights lie in kept slices of every dimension."""
    if live is None:
        sizes = [int(dims[d].sum()) if d in dims else size for d, size in enumerate(shape)]
        return torch.Size(sizes).numel()
    for dim, slices in dims.items():
        live = live.index_select(dim, slices.nonzero()[:, 0].to(live.device))
    return int(live.sum())
