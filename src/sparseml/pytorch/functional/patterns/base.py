"""What every pattern does, and what the patterns that cut each tensor by itself share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Tensors = Sequence[Tensor]

REDUCTIONS = ("l2", "max", "mean", "min", "sum")
"""How the scores of a unit's weights may be summed up."""


@dataclass(eq=False)
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
    units: int = field(init=False)
    """How many units there are."""
    removable: int = field(init=False)
    """How many weights go when all units go."""
    even: bool = field(init=False)
    """Whether a share of the units is the same share of the weights (of ``full`` of them)."""

    def __post_init__(self) -> None:
        size, self.units = self.size, self.scores.numel()
        self.removable = self.units * size if isinstance(size, int) else int(size.sum())
        as_much = self.removable == round(self.weights * self.full)
        self.even = isinstance(size, int) and not self.missing and as_much

    def sizes(self) -> Tensor:
        """Weights per unit, int64 of shape ``[units]`` on the scores' device."""
        if isinstance(self.size, int):
            return torch.full((self.units,), self.size, device=self.scores.device)
        return self.size.reshape(-1).to(self.scores.device)


class Pattern:
    """A way to cut weights into units that are kept or pruned as a whole; its text names it."""

    full_sparsity: float = 1.0
    """The sparsity when every unit has gone."""

    run: int = 0
    """How many consecutive inputs of one output form a unit; 0 if units are no such runs."""

    def check(self, shape: Sequence[int]) -> None:
        """Check that a weight of this shape can be cut.

        :raises ValueError: if it cannot
        """

    def among(self, chosen: Sequence[int]) -> Pattern:
        """Return the pattern for these tensors only, in this order.

        :raises ValueError: if some go together with others that are not chosen
        """
        return self

    def pools(self, scores: Tensors, live: Tensors | None = None) -> list[Pool]:
        """Cut the tensors into units and score these.

        :param scores: one tensor per weight, of its shape
        :param live: bool, False where a weight is gone already
        :raises ValueError: for a shape that cannot be cut
        """
        raise NotImplementedError

    def blank(self, shapes: Sequence[Sequence[int]]) -> list[Pool]:
        """Return the pools of weights of these shapes, with scores of 0.

        :raises ValueError: for a shape that cannot be cut
        """
        return self.pools([torch.zeros(()).expand(tuple(shape)) for shape in shapes])

    def masks(self, keep: Tensors, scores: Tensors, live: Tensors | None = None) -> list[Tensor]:
        """Return the masks (bool, True = keep, shapes of ``scores``) of a decision per unit.

        :param keep: one bool tensor per pool, of the shape of its scores
        :param scores: as in :meth:`pools`, as is ``live``; where a part of a unit goes, by these
        """
        raise NotImplementedError


class PerTensor(Pattern):
    """A pattern that cuts each tensor by itself, into units of one size unless it says otherwise.

    A subclass says how to fold a tensor so that units can be reduced, and how to unfold decisions.
    """

    reduce: str = "mean"

    def check(self, shape: Sequence[int]) -> None:
        self.fold(torch.empty(tuple(shape), dtype=torch.bool, device="meta"))

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return a view in which units lie along some dimensions, and these.

        :raises ValueError: as :meth:`check`
        """
        raise NotImplementedError

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Return the mask (bool, shape of ``scores``) of a decision per unit."""
        raise NotImplementedError

    def unit_scores(self, scores: Tensor, live: Tensor | None = None) -> Tensor:
        """Return one score per unit, in the order in which ties are broken."""
        folded, dims = self.fold(scores.detach())
        return reduce_dims(folded, dims, self.reduce)

    def unit_size(self, shape: Sequence[int], units: int) -> int | Tensor:
        """Return how many weights go with a unit of a tensor of this shape."""
        return torch.Size(shape).numel() // max(units, 1)

    def live_size(self, live: Tensor) -> Tensor:
        """Return how many weights each unit has left to lose (int64, shape of the unit scores)."""
        folded, dims = self.fold(live)
        return reduce_dims(folded, dims, "sum")

    def spread(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """Return for each weight of a tensor of this shape the value of its unit, of any dtype."""
        return self.expand(values, torch.zeros(()).expand(tuple(shape)))

    def units_of(self, shape: Sequence[int]) -> Tensor:
        """Return the unit of each weight, int64 of ``shape``, counted from 1 in tie order."""
        units = self.unit_scores(torch.zeros(()).expand(tuple(shape)))
        return self.spread(torch.arange(1, units.numel() + 1).view(units.shape), shape)

    def pools(self, scores: Tensors, live: Tensors | None = None) -> list[Pool]:
        pools = []
        for place, tensor in enumerate(scores):
            there = None if live is None else live[place]
            units, shape = self.unit_scores(tensor, there), tuple(tensor.shape)
            size, full = self.unit_size(shape, units.numel()), self.full_sparsity
            pool = Pool((place,), units, size, tensor.numel(), (shape,), full=full)
            if there is not None:
                lost = tensor.numel() - int(there.sum())
                pool = lowered(pool, self.live_size(there), lost)
            pools.append(pool)
        return pools

    def blank(self, shapes: Sequence[Sequence[int]]) -> list[Pool]:
        pools = []  # without ranking what is in a unit
        for place, shape in enumerate(map(tuple, shapes)):
            folded, dims = self.fold(torch.empty(shape, dtype=torch.bool, device="meta"))
            inside = [dim % folded.ndim for dim in dims]
            outside = [size for dim, size in enumerate(folded.shape) if dim not in inside]
            units = torch.zeros(()).expand(outside)
            size, weights = self.unit_size(shape, units.numel()), torch.Size(shape).numel()
            pools.append(Pool((place,), units, size, weights, (shape,), full=self.full_sparsity))
        return pools

    def masks(self, keep: Tensors, scores: Tensors, live: Tensors | None = None) -> list[Tensor]:
        return [self.expand(unit, tensor) for unit, tensor in zip(keep, scores, strict=True)]


@dataclass(frozen=True)
class Unstructured(PerTensor):
    """Every weight on its own."""

    run = 1

    def __str__(self) -> str:
        return "unstructured"

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        return values, ()

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        return keep

    def pools(self, scores: Tensors, live: Tensors | None = None) -> list[Pool]:
        pools = [
            Pool((place,), tensor.detach(), 1, tensor.numel(), (tuple(tensor.shape),))
            for place, tensor in enumerate(scores)
        ]
        for place, there in enumerate(live or ()):
            pools[place] = lowered(pools[place], there, there.numel() - int(there.sum()))
        return pools

    def masks(self, keep: Tensors, scores: Tensors, live: Tensors | None = None) -> list[Tensor]:
        return list(keep)


def lowered(pool: Pool, left: Tensor, lost: int) -> Pool:
    """Let units that have nothing left to lose go first, and the others lose what is left.

    :param pool: as if nothing was gone
    :param left: how many weights each unit still has to lose, shape and device of the scores
    :param lost: weights that are gone in all
    """
    nothing_left = left == 0
    gone = int(nothing_left.sum())
    scores, size = pool.scores, pool.size
    nominal = size if isinstance(size, int) else size.reshape(left.shape).to(left.device)
    taken = gone * nominal if isinstance(nominal, int) else int(nominal[nothing_left].sum())
    missing = max(lost - taken, 0)
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
    reduced: Tensor = getattr(values, {"max": "amax", "min": "amin"}.get(reduce, reduce))(dims)
    return reduced


def shape_text(shape: Sequence[int]) -> str:
    """Say a shape, for messages."""
    return f"shape {tuple(shape)}"
