"""What is kept beside masked weights: the values that masks took away, and mean gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["MaskedValues", "RunningMeans"]


class MaskedValues:
    """The masked parts of parameters, while they are not in the parameters.

    :param count: how many parameters
    """

    def __init__(self, count: int) -> None:
        self._parts: list[Tensor | None] = [None] * count

    def remember(self, index: int, param: Tensor, mask: Tensor) -> None:
        """Keep what ``mask`` is about to take from ``param``, unless it has been taken already."""
        if self._parts[index] is None:
            self._parts[index] = torch.where(mask == 0, param.detach(), 0.0)

    def put_back(self, index: int, param: Tensor) -> None:
        """Add what was taken to ``param``, in place."""
        part = self._parts[index]
        if part is not None:
            param.data.add_(part.to(param))
            self._parts[index] = None

    def follow_mask(self, index: int, param: Tensor, mask: Tensor) -> None:
        """Adjust what was taken to a new mask that ``param`` has not been multiplied with yet."""
        part = self._parts[index]
        if part is not None:
            taken = torch.where(mask == 0, param.detach() + part.to(param), 0.0)
            self._parts[index] = taken

    def forget(self, index: int) -> None:
        """Drop what was taken from one parameter."""
        self._parts[index] = None

    def unmasked(self, params: Sequence[Tensor]) -> list[Tensor]:
        """Copies of the parameters with what was taken from them."""
        return [
            param.detach().clone() if part is None else param.detach() + part.to(param)
            for param, part in zip(params, self._parts, strict=True)
        ]

    def progress_state(self) -> list[Tensor | None]:
        """All parts; they are never changed in place."""
        return list(self._parts)

    def load_progress_state(self, state: Sequence[Tensor | None]) -> None:
        """Restore :meth:`progress_state`."""
        self._parts = list(state)


class RunningMeans:
    """Exponentially weighted means of gradients, ``momentum * mean + (1 - momentum) * gradient``.

    :param count: how many parameters
    :param momentum: in [0, 1); a negative number keeps nothing
    """

    def __init__(self, count: int, momentum: float) -> None:
        self.momentum = momentum
        self.means: list[Tensor | None] = [None] * count

    def add(self, index: int, grad: Tensor) -> None:
        """Count in one gradient; the mean starts from zero."""
        if self.momentum < 0.0:
            return
        mean = self.means[index]
        mean = torch.zeros_like(grad) if mean is None else mean
        self.means[index] = self.momentum * mean + (1.0 - self.momentum) * grad.detach()

    def progress_state(self) -> list[Tensor | None]:
        """The means; they are never changed in place."""
        return list(self.means)

    def load_progress_state(self, state: Sequence[Tensor | None]) -> None:
        """Restore :meth:`progress_state`."""
        self.means = list(state)
