"""Deciding what brings parameters to a target, and getting there in several steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.utils.sharded import full_value
from sparseml.utils.interpolation import interpolate

__all__ = ["decided", "intermediate_targets", "undone"]


def decided(method: Method, problem: Problem, targets: Sequence[Target]) -> list[Outcome]:
    """Return the outcome for each target; that of a method that keeps zeros is never below them.

    Where all weights that a single target wants gone are gone already, nothing is estimated.
    """
    if not method.keeps_zeros:
        return method.decide(problem, targets)
    present = problem.present()
    asked: list[Target] = [_at_least(present, target) for target in targets]
    if asked == [present]:
        return [problem.outcome(problem.live)]
    return method.decide(problem, asked)


def intermediate_targets(
    problem: Problem, target: Target, count: int, curve: str
) -> Iterator[Target]:
    """Yield the targets of ``count`` steps from the sparsity that there is to ``target``."""
    if count == 1:
        yield target
        return
    start = problem.present()
    goal = [target] * len(start) if isinstance(target, float) else target
    for step in range(1, count + 1):
        yield [
            interpolate(step, 0, count, low, high, curve)
            for low, high in zip(start, goal, strict=True)
        ]


class undone:
    """Within the block masks are in force and may change; after it all is as it was.

    :meth:`outcome` tells, within the block, what has come of it.
    """

    def __init__(self, masks: MaskSet) -> None:
        self._masks = masks

    def __enter__(self) -> undone:
        self._values = [param.detach().clone() for param in self._masks.params]
        self._bits, self._enabled = self._masks.masks, self._masks.enabled
        self._masks.enabled = True
        return self

    def __exit__(self, *_: object) -> None:
        self._masks.enabled = self._enabled
        self._masks.restore(self._bits)
        with torch.no_grad():
            for param, value in zip(self._masks.params, self._values, strict=True):
                param.copy_(value)

    def outcome(self) -> Outcome:
        """Return the present masks and weights."""
        masks = self._masks
        parts = zip(masks.full_names, masks.masks, masks.params, strict=True)
        return Outcome(
            (name, Change(full_value(mask), full_value(param).clone()))
            for name, mask, param in parts
        )


def _at_least(present: list[float], target: Target) -> list[float]:
    asked = [target] * len(present) if isinstance(target, float) else target
    return [max(low, high) for low, high in zip(present, asked, strict=True)]
