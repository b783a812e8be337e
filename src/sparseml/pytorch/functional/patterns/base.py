"""What every pattern does, and what the patterns that cut each tensor by itself share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["REDUCTIONS", "Pattern", "PerTensor", "Pool", "lowered", "reduce_dims", "shape_text"]

REDUCTIONS = ("l2", "max", "mean", "min", "sum")
"""How the scores of a unit's weights may be summed up."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Units that are ranked within themselves: those of one tensor, or of tensors that go together.

    :param members: positions of the tensors
    :param scores: one per unit, any shape; ties are broken in row-major order
    :param size: weights that go with a unit; an int64 tensor of one entry per unit, in the order of
        the scores, where they differ
    :param weights: all weights of the members
    :param shapes: of the members
    :param gone: units of which nothing is left to prune; their score is -inf
    :param missing: weights that are gone already and belong to no such unit
    :param full: the sparsity of a member when all its units have gone
    """

    members: tuple[int, ...]
    scores: Tensor
    size: int | Tensor
    weights: int
    shapes: tuple[tuple[int, ...], ...]
    gone: int = 0
    missing: int = 0
    full: float = 1.0

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.scores.numel()

    @property
    def removable(self) -> int:
        """How many weights go when all units go."""
        return self.units * self.size if isinstance(self.size, int) else int(self.size.sum())

    @property
    def even(self) -> bool:
        """Whether a share of the units is the same share of the weights (of ``full`` of them)."""
        return (
            isinstance(self.size, int)
            and not self.missing
            and self.units * self.size == round(self.weights * self.full)
        )

    def sizes(self) -> Tensor:
        """Weights per unit, int64 of shape ``[units]`` on the scores' device."""
        if isinstance(self.size, int):
            return torch.full((self.units,), self.size, device=self.scores.device)
        return self.size.reshape(-1).to(self.scores.device)


class Pattern(Protocol):
    """A way to cut weights into units that are kept or pruned as a whole; its text names it."""

    @property
    def full_sparsity(self) -> float:
        """The sparsity when every unit has gone."""

    @property
    def run(self) -> int:
        """How many consecutive inputs of one output form a unit; 0 if units are no such runs."""

    def check(self, shape: Sequence[int]) -> None:
        """Check that a weight of this shape can be cut.

        :raises ValueError: if it cannot
        """

    def among(self, chosen: Sequence[int]) -> Pattern:
        """Return the pattern for these tensors only, in this order.

        :raises ValueError: if some go together with others that are not chosen
        """

    def pools(self, scores: Sequence[Tensor], live: Sequence[Tensor] | None = None) -> list[Pool]:
        """Cut the tensors into units and score these.

        :param scores: one tensor per weight, of its shape
        :param live: bool, False where a weight is gone already
        :raises ValueError: for a shape that cannot be cut
        """

    def blank(self, shapes: Sequence[Sequence[int]]) -> list[Pool]:
        """Return the pools of weights of these shapes, with scores of 0.

        :raises ValueError: for a shape that cannot be cut
        """

    def masks(
        self,
        keep: Sequence[Tensor],
        scores: Sequence[Tensor],
        live: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Return the masks (bool, True = keep, shapes of ``scores``) of a decision per unit.

        :param keep: one bool tensor per pool, of the shape of its scores
        :param scores: as in :meth:`pools`, as is ``live``; where a part of a unit goes, by these
        """


class PerTensor(ABC):
    """A pattern that cuts each tensor by itself, into units of one size unless it says otherwise.

    A subclass says how to fold a tensor so that units can be reduced, and how to unfold decisions.
    """

    reduce: str = "mean"

    @property
    def full_sparsity(self) -> float:
        """The sparsity when every unit has gone: 1 if units go as a whole."""
        return 1.0

    @property
    def run(self) -> int:
        """How many consecutive inputs form a unit: 0, as units are no such runs."""
        return 0

    @abstractmethod
    def check(self, shape: Sequence[int]) -> None:
        """Check that a weight of this shape can be cut.

        :raises ValueError: if it cannot
        """

    @abstractmethod
    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return a view in which units lie along some dimensions, and these.

        :raises ValueError: as :meth:`check`
        """

    @abstractmethod
    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Return the mask (bool, shape of ``scores``) of a decision per unit."""

    def unit_scores(self, scores: Tensor, live: Tensor | None = None) -> Tensor:
        """One score per unit, in the order in which ties are broken."""
        folded, dims = self.fold(scores.detach())
        return reduce_dims(folded, dims, self.reduce)

    def unit_size(self, shape: Sequence[int], units: int) -> int | Tensor:
        """How many weights go with a unit of a tensor of this shape."""
        return torch.Size(shape).numel() // max(units, 1)

    def live_size(self, live: Tensor) -> Tensor:
        """How many weights each unit still has to lose (int64, shape of the unit scores)."""
        folded, dims = self.fold(live)
        return reduce_dims(folded, dims, "sum")

    def units_of(self, shape: Sequence[int]) -> Tensor:
        """Return the unit of each weight, int64 of ``shape``, counted from 1 in tie order."""
        like = torch.zeros(()).expand(tuple(shape))
        units = self.unit_scores(like)
        return self.expand(torch.arange(1, units.numel() + 1).view(units.shape), like)

    def among(self, chosen: Sequence[int]) -> PerTensor:
        """Return itself: tensors do not depend on each other."""
        return self

    def pools(self, scores: Sequence[Tensor], live: Sequence[Tensor] | None = None) -> list[Pool]:
        """One pool per tensor."""
        pools = []
        for place, tensor in enumerate(scores):
            there = None if live is None else live[place]
            pool = self._pool(place, tensor.shape, self.unit_scores(tensor, there))
            if there is not None:
                lost = tensor.numel() - int(there.sum())
                pool = lowered(pool, self.live_size(there), lost)
            pools.append(pool)
        return pools

    def blank(self, shapes: Sequence[Sequence[int]]) -> list[Pool]:
        """One pool per tensor."""
        pools = []
        for place, shape in enumerate(shapes):
            folded, dims = self.fold(torch.zeros((), dtype=torch.bool).expand(tuple(shape)))
            units = [size for dim, size in enumerate(folded.shape) if dim not in dims]
            pools.append(self._pool(place, shape, torch.zeros(()).expand(units)))
        return pools

    def masks(
        self,
        keep: Sequence[Tensor],
        scores: Sequence[Tensor],
        live: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Unfold each decision over its tensor."""
        return [self.expand(unit, tensor) for unit, tensor in zip(keep, scores, strict=True)]

    def _pool(self, place: int, shape: Sequence[int], units: Tensor) -> Pool:
        return Pool(
            members=(place,),
            scores=units,
            size=self.unit_size(shape, units.numel()),
            weights=torch.Size(shape).numel(),
            shapes=(tuple(shape),),
            full=self.full_sparsity,
        )


def lowered(pool: Pool, left: Tensor, lost: int) -> Pool:
    """Let units that have nothing left to lose go first, and the others lose what is left.

    :param pool: as if nothing was gone
    :param left: how many weights each unit still has to lose, shape and device of the scores
    :param lost: weights that are gone in all
    """
    nothing_left = left == 0
    gone = int(nothing_left.sum())
    nominal = pool.sizes().reshape(left.shape)
    missing = max(lost - int(nominal[nothing_left].sum()), 0)
    scores, size = pool.scores, pool.size
    if missing:
        size = torch.where(nothing_left, nominal, left.long())
    if gone:
        scores = scores if scores.is_floating_point() else scores.double()
        lowest = torch.finfo(scores.dtype).min
        scores = scores.clamp_min(lowest).masked_fill(nothing_left, -torch.inf)
    return replace(pool, scores=scores, size=size, gone=gone, missing=missing)


def reduce_dims(values: Tensor, dims: tuple[int, ...], reduce: str) -> Tensor:
    """Sum up ``values`` over ``dims``, in at least single precision.

    :param reduce: one of :data:`REDUCTIONS`. ``l2`` is the Euclidean norm, which forgets signs
    :raises ValueError: for another ``reduce``
    """
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {REDUCTIONS}, found {reduce!r}")
    if reduce == "l2":
        return torch.linalg.vector_norm(values, dim=dims) if dims else values.abs()
    if not dims:
        return values
    if not values.numel():
        return values.sum(dims)  # the mean of nothing is no number, and it has no highest
    if reduce == "max":
        return values.amax(dims)
    if reduce == "min":
        return values.amin(dims)
    return values.mean(dims) if reduce == "mean" else values.sum(dims)


def shape_text(shape: Sequence[int]) -> str:
    """Say a shape, for messages."""
    return f"shape {tuple(shape)}"
