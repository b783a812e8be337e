"""N of every M consecutive inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns.base import PerTensor, Tensors, reduce_dims, shape_text
from sparseml.pytorch.functional.selection import require_numbers

__all__ = ["NM"]


@dataclass(frozen=True)
class NM(PerTensor):
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

    def __str__(self) -> str:
        return f"{self.keep}:{self.group}"

    @property
    def full_sparsity(self) -> float:  # type: ignore[override]
        """The sparsity at which every group is in the pattern."""
        return 1.0 - self.keep / self.group

    @property
    def run(self) -> int:  # type: ignore[override]
        return self.group

    def check(self, shape: Sequence[int]) -> None:
        if len(shape) < 2:
            raise ValueError(f"{self} needs an input dimension, found {shape_text(shape)}")
        if shape[1] % self.group:
            raise ValueError(
                f"{self} needs an input dimension (the second) that is a multiple of "
                f"{self.group}, found {shape_text(shape)}"
            )

    def fold(self, values: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """View of shape ``[out, *kernel, in / group, group]``."""
        self.check(values.shape)
        return values.movedim(1, -1).unflatten(-1, (-1, self.group)), (-1,)

    def unit_scores(self, scores: Tensor, live: Tensor | None = None) -> Tensor:
        """Shape ``[out, *kernel, in / group]``: what is lost by putting each group into order."""
        require_numbers(scores)  # sorting would put NaN last and so hide it
        groups = self.fold(scores.detach())[0]
        lose = self.group - self.keep
        if live is None:
            lowest = groups.sort(dim=-1).values[..., :lose]
        else:
            there = self.fold(live)[0]
            order = groups.masked_fill(~there, -torch.inf).argsort(dim=-1)[..., :lose]
            lowest = groups.masked_fill(~there, 0.0).gather(-1, order)
        return reduce_dims(lowest, (-1,), "sum") / self.group

    def unit_size(self, shape: Sequence[int], units: int) -> int:
        return self.group - self.keep

    def live_size(self, live: Tensor) -> Tensor:
        """What a group has beyond the ones it may keep."""
        return (self.fold(live)[0].sum(-1) - self.keep).clamp_min(0)

    def expand(self, keep: Tensor, scores: Tensor) -> Tensor:
        """All of the kept groups, the highest scores of the others."""
        groups = self.fold(scores)[0]
        # stable, so that among equal scores the first are kept
        order = groups.sort(dim=-1, descending=True, stable=True).indices
        best = torch.zeros_like(groups, dtype=torch.bool)
        best.scatter_(-1, order[..., : self.keep], True)
        mask = best | keep.unsqueeze(-1)
        return mask.flatten(-2).movedim(-1, 1).contiguous()

    def masks(self, keep: Tensors, scores: Tensors, live: Tensors | None = None) -> list[Tensor]:
        if live is not None:
            scores = [
                tensor.masked_fill(~there, -torch.inf)
                for tensor, there in zip(scores, live, strict=True)
            ]
        return super().masks(keep, scores)
