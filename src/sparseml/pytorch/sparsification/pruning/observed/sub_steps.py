"""Going from one set of masks to the next in several steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sparseml.pytorch.functional.selection import partly
from sparseml.pytorch.sparsification.declared_state import gather_progress, restore_progress
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Problem
from sparseml.pytorch.utils.tensors.sharded import full_value

Scores = Callable[[Problem], list[Tensor]]


class SubSteps:
    """Of an update's changes, a part goes at once and the others in the steps that follow.

    Of the weights that an update takes, ``floor(n * p / P)`` are gone after part p of P, those with
    the lowest scores at that moment, whatever layer or unit they are in. With the last part the
    masks are those of the update, and weights that it gives back are free. Parts have the same
    number of optimizer steps between them; there are no more parts than steps to the next update.

    :param parts: P
    """

    _progress = ("_goal", "_leaving", "_done", "_parts", "_every", "_begun")

    def __init__(self, parts: int) -> None:
        self._wanted = parts
        self._goal: dict[str, Tensor] = {}
        self._leaving = self._done = self._parts = self._every = self._begun = 0
        self.step = 0
        """The optimizer step that is under way."""
        self.interval = 1
        """How many optimizer steps the changes of an update may take, this one included."""

    def begin(self, outcome: Outcome, problem: Problem, scores: Scores) -> Outcome:
        """Return the first part of an outcome; it is the whole where there is no time for more."""
        self._goal = {}
        self._parts = min(self._wanted, self.interval)
        if self._parts <= 1:
            return outcome
        self._goal = {name: change.mask for name, change in outcome.items()}
        self._leaving = sum(int((now & ~self._goal[name]).sum()) for name, now in _whole(problem))
        self._every, self._begun, self._done = self.interval // self._parts, self.step, 0
        return self.proceed(problem, scores)

    def due(self, step: int) -> bool:
        """Return whether at this optimizer step another part goes."""
        return bool(self._goal) and step >= self._begun + self._done * self._every

    def proceed(self, problem: Problem, scores: Scores) -> Outcome:
        """Return the next part, as the masks of all parameters."""
        self._done += 1
        goal = self._goal
        if self._done >= self._parts:
            self._goal = {}
            return Outcome((name, Change(mask)) for name, mask in goal.items())
        masks = dict(_whole(problem))
        now, then = list(masks.values()), [goal[name].to(masks[name].device) for name in masks]
        left = sum(int((mask & ~after).sum()) for mask, after in zip(now, then, strict=True))
        gone = self._leaving - left
        count = max(self._leaving * self._done // self._parts - gone, 0)
        parts = partly(now, then, problem.turned(scores(problem)), min(count, left))
        return Outcome(zip(masks, map(Change, parts), strict=True))

    def progress_state(self) -> dict[str, Any]:
        """Return where between two updates it stands, as plain data and tensors."""
        return gather_progress(self)

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`."""
        restore_progress(self, state)


def _whole(problem: Problem) -> list[tuple[str, Tensor]]:
    masks = problem.masks
    return [
        (name, full_value(mask)) for name, mask in zip(masks.full_names, masks.masks, strict=True)
    ]
