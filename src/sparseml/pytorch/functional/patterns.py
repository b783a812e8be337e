"""What is pruned together: single weights, rectangles, filters, channels, N of M.

A pattern cuts a weight into *units*. It turns a score per weight into a score per unit, and a
decision per unit back into a mask. How many units go, and from which tensor, is a question of the
budget (:mod:`~sparseml.pytorch.functional.budgets`); which ones is answered by the lowest unit
scores, ties by position. So any score works with any pattern and any budget.

Weights have their output dimension first and their input dimension second: ``[out, in]`` for linear
layers, ``[out, in, *kernel]`` for convolutions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sparseml.pytorch.functional.selection import (
    lowest_mask,
    prune_count,
    require_numbers,
    require_sparsity,
)

__all__ = [
    "CHANNEL",
    "FILTER",
    "NM",
    "REDUCTIONS",
    "Block",
    "Pattern",
    "Slice",
    "Unstructured",
    "nm_mask",
    "parse_pattern",
    "pattern_mask",
    "reduce_dims",
]

REDUCTIONS = ("l2", "max", "mean", "min", "sum")
"""How the scores of a unit's weights may be summed up."""


class Pattern(Protocol):
    """A way to cut a weight into units that are kept or pruned as a whole."""

    def unit_scores(self, scores: Tensor) -> Tensor:
        """One score per unit, in the order in which ties are broken."""

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """The mask (bool, shape of ``scores``) of a decision per unit (bool, True = keep)."""

    def unit_sparsity(self, sparsity: float) -> float:
        """The fraction of units to prune, so that ``sparsity`` of the weights are."""


def reduce_dims(scores: Tensor, dims: tuple[int, ...], reduce: str) -> Tensor:
    """Sum up ``scores`` over ``dims``, in at least single precision.

    :param reduce: one of :data:`REDUCTIONS`. ``l2`` is the Euclidean norm, which forgets signs
    :raises ValueError: for another ``reduce``
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    if reduce == "l2":
        return torch.linalg.vector_norm(scores, dim=dims)
    if reduce == "max":
        return scores.amax(dims)
    if reduce == "min":
        return scores.amin(dims)
    if reduce == "mean":
        return scores.mean(dims)
    if reduce == "sum":
        return scores.sum(dims)
    raise ValueError(f"reduce must be one of {REDUCTIONS}, found {reduce!r}")


@dataclass(frozen=True)
class Unstructured:
    """Every weight on its own."""

    def unit_scores(self, scores: Tensor) -> Tensor:
        """The scores as they are."""
        return scores

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """The decisions as they are."""
        return keep

    def unit_sparsity(self, sparsity: float) -> float:
        """The sparsity as it is."""
        return sparsity


@dataclass(frozen=True)
class Block:
    """True rectangles of ``rows`` outputs by ``cols`` inputs; -1 spans the whole dimension.

    In a convolution's weight each kernel position has rectangles of its own.
    """

    rows: int
    cols: int
    reduce: str = "mean"

    def __post_init__(self) -> None:
        if any(size != -1 and size < 1 for size in (self.rows, self.cols)):
            raise ValueError(f"a block is at least 1x1 (-1: whole dimension), found {self}")

    def _cut(self, scores: Tensor) -> tuple[int, int, int, int]:
        """Blocks and block size along the outputs, the same along the inputs."""
        if scores.ndim < 2:
            raise ValueError(
                f"{self} needs an output and an input dimension, found {_shape(scores)}"
            )
        out, in_ = scores.shape[:2]
        rows = out if self.rows == -1 else self.rows
        cols = in_ if self.cols == -1 else self.cols
        if out % max(rows, 1) or in_ % max(cols, 1):
            raise ValueError(f"blocks of {rows}x{cols} do not divide a weight of {_shape(scores)}")
        return out // max(rows, 1), rows, in_ // max(cols, 1), cols

    def unit_scores(self, scores: Tensor) -> Tensor:
        """Shape ``[out / rows, in / cols, *kernel]``."""
        cut = scores.reshape(*self._cut(scores), *scores.shape[2:])
        return reduce_dims(cut, (1, 3), self.reduce)

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Each decision for every weight of its rectangle."""
        spread = keep.unsqueeze(1).unsqueeze(3)
        return spread.expand(*self._cut(scores), *scores.shape[2:]).reshape(scores.shape)

    def unit_sparsity(self, sparsity: float) -> float:
        """The sparsity as it is: all blocks of a weight have one size."""
        return sparsity


@dataclass(frozen=True)
class Slice:
    """Whole slices across ``dim``: filters (0, a row of outputs) or channels (1, one input).

    The mean of absolute weights is the L1 rule of Li et al., "Pruning filters for efficient
    ConvNets" (2017).
    """

    dim: int
    reduce: str = "mean"

    def unit_scores(self, scores: Tensor) -> Tensor:
        """Shape ``[size of dim]``."""
        if scores.ndim <= self.dim:
            raise ValueError(f"{self} needs a dimension {self.dim}, found {_shape(scores)}")
        others = tuple(d for d in range(scores.ndim) if d != self.dim)
        return reduce_dims(scores, others, self.reduce) if others else scores

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """Each decision for its whole slice."""
        shape = [1] * scores.ndim
        shape[self.dim] = -1
        return keep.reshape(shape).expand(scores.shape).contiguous()

    def unit_sparsity(self, sparsity: float) -> float:
        """The sparsity as it is: all slices of a weight have one size."""
        return sparsity


FILTER = Slice(0)
CHANNEL = Slice(1)


@dataclass(frozen=True)
class NM:
    """``keep`` of every ``group`` consecutive inputs, as sparse tensor cores want it (2 of 4).

    A unit is one group. Pruning a unit removes its ``group - keep`` lowest weights; keeping it
    leaves it dense. So the sparsity grows with the number of groups already in the pattern, and at
    ``1 - keep / group`` all of them are. In a convolution's weight groups run along the input
    channels, at each kernel position.
    """

    keep: int
    group: int

    def __post_init__(self) -> None:
        if not 0 < self.keep < self.group:
            raise ValueError(f"N:M keeps N of M with 0 < N < M, found {self.keep}:{self.group}")

    @property
    def full_sparsity(self) -> float:
        """The sparsity at which every group is in the pattern."""
        return 1.0 - self.keep / self.group

    def _groups(self, scores: Tensor) -> Tensor:
        """View of shape ``[out, *kernel, in / group, group]``."""
        if scores.ndim < 2:
            raise ValueError(f"{self} needs an input dimension, found {_shape(scores)}")
        if scores.shape[1] % self.group:
            raise ValueError(
                f"{self.keep}:{self.group} needs an input dimension (the second) that is a "
                f"multiple of {self.group}, found {_shape(scores)}"
            )
        return scores.movedim(1, -1).unflatten(-1, (-1, self.group))

    def unit_scores(self, scores: Tensor) -> Tensor:
        """Shape ``[out, *kernel, in / group]``: what is lost by putting each group into order."""
        require_numbers(scores)  # sorting would put NaN last and so hide it
        lowest = self._groups(scores).sort(dim=-1).values[..., : self.group - self.keep]
        return reduce_dims(lowest, (-1,), "sum") / self.group

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """All of the kept groups, the highest scores of the others."""
        groups = self._groups(scores)
        # stable, so that among equal scores the first are kept
        order = groups.sort(dim=-1, descending=True, stable=True).indices
        best = torch.zeros_like(groups, dtype=torch.bool)
        best.scatter_(-1, order[..., : self.keep], True)
        mask = best | keep.unsqueeze(-1)
        return mask.flatten(-2).movedim(-1, 1).contiguous()

    def unit_sparsity(self, sparsity: float) -> float:
        """The fraction of groups that must be in the pattern.

        :raises ValueError: for a sparsity beyond that of the full pattern
        """
        require_sparsity(sparsity)
        units = sparsity / self.full_sparsity
        if units > 1.0 + 1e-9:
            raise ValueError(
                f"{self.keep}:{self.group} reaches a sparsity of {self.full_sparsity:g} and no "
                f"more, found {sparsity:g}"
            )
        return min(units, 1.0)


def pattern_mask(scores: Tensor, pattern: Pattern, sparsity: float) -> Tensor:
    """Prune a fraction of one tensor's units, those with the lowest scores.

    Exactly ``round(units * fraction)`` units go, whatever ties there are; among equal scores the
    first in row-major order stay.

    :param scores: a score per weight, higher = more important; shape of the weight
    :param sparsity: the fraction of weights to prune, in [0, 1]
    :return: bool, shape and device of ``scores``; True = keep
    :raises ValueError: for NaN scores, a sparsity outside [0, 1] (or beyond what the pattern can
        reach), or a shape that the pattern does not divide
    """
    units = pattern.unit_scores(scores)
    count = prune_count(units.numel(), pattern.unit_sparsity(sparsity))
    return pattern.expand(lowest_mask(units, count), scores)


def nm_mask(scores: Tensor, keep: int, group: int) -> Tensor:
    """Keep the ``keep`` highest scores of every ``group`` consecutive inputs.

    :param scores: ``[out, in]`` or ``[out, in, *kernel]``, ``in`` a multiple of ``group``
    :return: bool, shape and device of ``scores``; True = keep
    :raises ValueError: for NaN scores or a shape that cannot be grouped
    """
    pattern = NM(keep, group)
    return pattern_mask(scores, pattern, pattern.full_sparsity)


def parse_pattern(text: str) -> Pattern | None:
    """The pattern that a recipe's word stands for, None for a word that names none.

    ``unstructured``, ``filter``, ``channel``, ``block4`` (1x4), ``RxC`` as ``4x1`` (R outputs by C
    inputs), ``N:M`` as ``2:4`` (N kept of M), ``tensorrt`` (2:4).
    """
    words: dict[str, Pattern] = {
        "unstructured": Unstructured(),
        "filter": FILTER,
        "channel": CHANNEL,
        "block4": Block(1, 4),
        "tensorrt": NM(2, 4),
    }
    if text in words:
        return words[text]
    numbers = re.fullmatch(r"(\d+)([x:])(\d+)", text)
    if numbers is None:
        return None
    first, second = int(numbers[1]), int(numbers[3])
    return Block(first, second) if numbers[2] == "x" else NM(first, second)


def _shape(tensor: Tensor) -> str:
    return f"shape {tuple(tensor.shape)}"
