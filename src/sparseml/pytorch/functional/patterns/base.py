"""What every pattern does, and what the patterns that cut each tensor by itself share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
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
        """All of it."""
        return 1.0

    @property
    def run(self) -> int:
        """No runs of inputs."""
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

    def among(self, chosen: Sequence[int]) -> PerTensor:
        """Return itself: tensors do not depend on each other."""
        return self

    def pools(self, scores: Sequence[Tensor], live: Sequence[Tensor] | None = None) -> list[Pool]:
        """One pool per tensor."""
        return [
            self._pool(place, tensor, None if live is None else live[place])
            for place, tensor in enumerate(scores)
        ]

    def masks(
        self,
        keep: Sequence[Tensor],
        scores: Sequence[Tensor],
        live: Sequence[Tensor] | None = None,
    ) -> list[Tensor]:
        """Unfold each decision over its tensor."""
        return [self.expand(unit, tensor) for unit, tensor in zip(keep, scores, strict=True)]

    def _pool(self, place: int, scores: Tensor, live: Tensor | None) -> Pool:
        units = self.unit_scores(scores, live)
        size = self.unit_size(scores.shape, units.numel())
        gone = missing = 0
        if live is not None:
            units, size, gone, missing = lowered(
                units, size, self.live_size(live), scores.numel() - int(live.sum())
            )
        return Pool(
            members=(place,),
            scores=units,
            size=size,
            weights=scores.numel(),
            shapes=(tuple(scores.shape),),
            gone=gone,
            missing=missing,
            full=self.full_sparsity,
        )


def lowered(
    scores: Tensor, size: int | Tensor, left: Tensor, lost: int
) -> tuple[Tensor, int | Tensor, int, int]:
    """Let units that have nothing left to lose go first, and the others lose what is left.

    :param scores: per unit
    :param size: per unit, when nothing is gone
    :param left: how many weights each unit still has to lose, shape of ``scores``
    :param lost: weights that are gone in all
    :return: scores, sizes, units that are gone, and weights that are gone beside these
    """
    nothing_left = left == 0
    gone = int(nothing_left.sum())
    nominal = torch.as_tensor(size, device=left.device).reshape(-1).expand(left.numel())
    nominal = nominal.reshape(left.shape)
    missing = lost - int(nominal[nothing_left].sum())
    if missing:
        size = torch.where(nothing_left, nominal, left.long())
    if gone:
        if not scores.is_floating_point():
            scores = scores.double()
        lowest = torch.finfo(scores.dtype).min
        scores = scores.clamp_min(lowest).masked_fill(nothing_left, -torch.inf)
    return scores, size, gone, missing


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
