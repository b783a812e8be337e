"""Trying several dampenings on the model, and taking the one that is best on data kept out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import NamedTuple

import torch

from sparseml.pytorch.functional.second_order.dampening import (
    best_decade,
    mean_loss,
    try_decades,
)
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Problem, Target
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import undisturbed
from sparseml.pytorch.sparsification.pruning.sampling.held_out import HeldOut, Verdict
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.tensors.parametrized import rescued
from sparseml.pytorch.utils.tensors.sharded import full_value, shard_like

_LOGGER = logging.getLogger(__name__)
_AHEAD_ERRORS = 2.0

Attempt = Callable[[float, Callable[[str], None]], list[Outcome]]
"""Given a relative dampening, and what is told of it, returns an outcome for each target."""


def best_of_decades(
    owner: str,
    problem: Problem,
    targets: Sequence[Target],
    gradients: int,
    attempt: Attempt,
) -> list[Outcome]:
    """Return for each target the outcome that is best on batches kept out of the estimate.

    What judges them is told in :mod:`~sparseml.pytorch.sparsification.pruning.sampling.held_out`.
    Where training follows, it is the one of the largest dampening that is the best but for sampling
    error, and batch norms are judged by the statistics that they will learn. The model is
    as it was in the end, bit by bit. All ranks see all losses, and decide alike.

    :param owner: the modifier, for messages
    :param gradients: how many are about to be sampled for the estimate
    :param attempt: makes the outcomes; estimates when it is first called
    :raises RuntimeError: without a sampler, with too few data, and where no loss is finite, before
        or after
    """
    if problem.sampler is None:
        raise RuntimeError(f"{owner}: damp: auto needs a grad_sampler, to judge by its data")
    module = unwrap_module(problem.module, root=True)
    parts = problem.sampler.keep_out(module, gradients)
    parts = parts[:1] if problem.ahead else parts  # what is best there is not judged again
    with undisturbed(module):
        sound = _finite(owner, [part.begin(module) for part in parts])
    rest = parts[1:] if any(sound[-1]) else []
    trials = _Trials(problem, parts[0], sound[0], attempt, 1 + len(rest))
    found = try_decades(trials.judge, near=problem.near)
    for more in rest:
        trials.judge_again(more, sound[-1])
    chosen = []
    for place, tried in enumerate(found):
        mean, best, outcome = trials.leading[place][0]
        if mean == math.inf:
            raise _without_loss(owner, tried)
        if problem.ahead:  # a larger one that is as good
            best, decade = best_decade(tried, _AHEAD_ERRORS), best
            outcome = outcome if best == decade else attempt(10.0**best, lambda _: None)[place]
        asked = problem.one_each(targets[place])
        note = _note(owner, asked, best, parts, trials.told[place])
        outcome.notes, outcome.decade = (*outcome.notes, note), best
        _tell(note, trials.warnings[best])
        chosen.append(outcome)
    return chosen


class _Try(NamedTuple):
    """A dampening, what its outcome is judged by, and the outcome."""

    mean: float
    decade: int
    outcome: Outcome


class _Trials:
    """Dampenings tried on the model.

    :param sound: which batches are judged by
    :param held: outcomes of each target, the best ones, that are kept: not all, for they are large
    """

    def __init__(
        self,
        problem: Problem,
        held_out: HeldOut,
        sound: Sequence[bool],
        attempt: Attempt,
        held: int,
    ) -> None:
        self._problem, self._held_out, self._sound = problem, held_out, sound
        self._attempt, self._held = attempt, held
        # training measures statistics anew; after one shot they are where that lowers the loss
        ways = [True] if problem.ahead else [False, True]
        self._statistics = ways if held_out.norms else [False]
        self._ways: dict[tuple[int, int], list[list[Verdict]]] = {}  # of place and decade
        self.leading: dict[int, list[_Try]] = {}
        """Of each target the best, in order; of equal ones the larger dampening first."""
        self.told: dict[int, list[dict[int, Verdict]]] = {}
        """Of each target the means by decade: of all that were tried, and of those tried again."""
        self.warnings: dict[int, list[str]] = {}

    def judge(self, decade: int) -> list[list[float]]:
        """Return for each outcome what it is judged by, on every batch."""
        told = self.warnings[decade] = []
        judged = []
        for place, outcome in enumerate(self._attempt(10.0**decade, told.append)):
            ways = self._judged(outcome, self._held_out, self._sound)
            self._ways[place, decade] = ways
            found = self._better(ways, place, 0, decade)
            judged.append([verdict.by for verdict in found])
            self._rank(place, _Try(mean_loss(judged[-1]), decade, outcome))
        return judged

    def judge_again(self, more: HeldOut, sound: Sequence[bool]) -> None:
        """Let more batches decide between the best of each outcome."""
        first, self.leading = self.leading, {}
        for place, tries in first.items():
            for _, decade, outcome in tries:
                before = self._ways[place, decade]
                ways = zip(before, self._judged(outcome, more, sound), strict=True)
                found = self._better([known + new for known, new in ways], place, 1, decade)
                mean = mean_loss([verdict.by for verdict in found])
                self._rank(place, _Try(mean, decade, outcome))

    def _rank(self, place: int, new: _Try) -> None:
        known = self.leading.get(place, [])
        ranked = sorted([*known, new], key=lambda one: (one.mean, -one.decade))
        self.leading[place] = ranked[: self._held]

    def _judged(
        self, outcome: Outcome, held_out: HeldOut, sound: Sequence[bool]
    ) -> list[list[Verdict]]:
        """What a model does on each batch, by each kind of statistics."""
        module = unwrap_module(self._problem.module, root=True)
        with undisturbed(module), _written(self._problem, outcome):
            ways = [held_out.judge(module, way) for way in self._statistics]
        return [list(compress(way, sound)) for way in ways]

    def _better(
        self, ways: Sequence[list[Verdict]], place: int, again: int, decade: int
    ) -> list[Verdict]:
        """Return the better of the ways, and note its means."""
        found = min(ways, key=lambda way: mean_loss([verdict.by for verdict in way]))
        means = Verdict(*(mean_loss(column) for column in zip(*found, strict=True)))
        self.told.setdefault(place, [{}, {}])[again][decade] = means
        return found


def _tell(note: str, warnings: Iterable[str]) -> None:
    _LOGGER.info(note)
    for warning in dict.fromkeys(warnings):
        _LOGGER.warning(warning)


def _finite(owner: str, losses: Sequence[Sequence[float]]) -> list[list[bool]]:
    """Which batches have a finite loss before anything is pruned; not all of them need have."""
    sound = [[math.isfinite(loss) for loss in part] for part in losses]
    if not any(sound[0]):
        raise RuntimeError(
            f"{owner}: damp: auto judges by batches kept out, and before anything is pruned the "
            "loss is not finite on any of them; check the loss and the data of the grad_sampler, "
            "or give a number for damp"
        )
    count, right = sum(map(len, sound)), sum(map(sum, sound))
    if right < count:  # as sampling skips them
        text = "%s: damp: auto leaves out %d of %d batches whose loss is not finite"
        _LOGGER.warning(text, owner, count - right, count)
    return sound


def _without_loss(owner: str, tried: Iterable[int]) -> RuntimeError:
    return RuntimeError(
        f"{owner}: damp: auto found no dampening that gives a finite loss, tried "
        f"{', '.join(f'1e{decade}' for decade in tried)} of the mean diagonal; check the loss and "
        "the data of the grad_sampler"
    )


def _note(
    owner: str,
    asked: Sequence[float],
    best: int,
    parts: Sequence[HeldOut],
    told: Sequence[Mapping[int, Verdict]],
) -> str:
    goal = f" at sparsity {asked[0]:.4g}" if len(set(asked)) == 1 else ""
    measure, samples = parts[0].measure, parts[0].samples
    first, again = (_listed(means, measure != "loss") for means in told)
    if again:
        again = f"; of the best two on {sum(part.samples for part in parts)}: {again}"
    return (
        f"{owner}{goal}: damp: auto chose 1e{best} of the Fisher matrix's mean diagonal, by the "
        f"{measure} on {samples} samples kept out of it ({first}){again}"
    )


def _listed(means: Mapping[int, Verdict], both: bool) -> str:
    return ", ".join(
        f"1e{decade}: {mean:.4g}" + f" (loss {loss:.4g})" * both
        for decade, (mean, loss) in sorted(means.items())
    )


@contextmanager
def _written(problem: Problem, outcome: Outcome) -> Iterator[None]:
    """Within the block the model has the outcome's weights; after it those that it had."""
    masks = problem.masks
    before = [(param, param.detach().clone()) for param in masks.params]
    try:
        with torch.no_grad():
            for one in masks.found:
                change = outcome[one.name]
                value = full_value(one.param)
                kept = change.mask.to(value.device)
                rest = rescued(one.layer, one.param_name, kept)
                new = value * kept if change.weight is None else change.weight.to(value)
                new = new if rest is None else torch.where(rest, value, new)
                one.param.copy_(shard_like(new, one.param) if masks.sharded else new)
        yield
    finally:
        with torch.no_grad():
            for param, value in before:
                param.copy_(value)
