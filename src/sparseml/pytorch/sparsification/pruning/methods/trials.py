"""Trying several dampenings on the model, and taking the one that is best on data kept out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress

import torch

from sparseml.pytorch.functional.second_order.dampening import (
    HIGHEST,
    best_decade,
    mean_loss,
    try_decades,
)
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Problem, Target
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import undisturbed
from sparseml.pytorch.sparsification.pruning.sampling.held_out import HeldOut
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.tensors.parametrized import rescued
from sparseml.pytorch.utils.tensors.sharded import full_value, shard_like

_LOGGER = logging.getLogger(__name__)
_AHEAD_HIGHEST, _AHEAD_ERRORS = 3, 2.0

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
    held_out = problem.sampler.keep_out(module, gradients)
    with undisturbed(module):
        sound = _finite(owner, held_out.begin(module))
    trials = _Trials(problem, held_out, sound, attempt, len(targets))
    highest = _AHEAD_HIGHEST if problem.ahead else HIGHEST
    found = try_decades(trials.judge, highest=highest, near=problem.near)
    chosen = []
    for place, tried in enumerate(found):
        best = best_decade(tried, _AHEAD_ERRORS if problem.ahead else None)
        decade, mean, outcome = trials.leading[place]
        if mean == math.inf:
            raise _without_loss(owner, tried)
        if decade != best:  # a larger one that is as good
            outcome = attempt(10.0**best, lambda _: None)[place]
        asked, means = problem.one_each(targets[place]), trials.means(place, tried)
        note = _note(owner, asked, best, held_out, means)
        outcome.notes, outcome.decade = (*outcome.notes, note), best
        _tell(note, trials.warnings[best])
        chosen.append(outcome)
    return chosen


class _Trials:
    """Dampenings tried on the model.

    :param sound: which batches are judged by
    :param count: of outcomes that each dampening has
    """

    def __init__(
        self,
        problem: Problem,
        held_out: HeldOut,
        sound: Sequence[bool],
        attempt: Attempt,
        count: int,
    ) -> None:
        self._problem, self._held_out, self._sound = problem, held_out, sound
        self._attempt = attempt
        # training measures statistics anew; after one shot they are where that lowers the loss
        ways = [True] if problem.ahead else [False, True]
        self._statistics = ways if held_out.norms else [False]
        self._losses: list[dict[int, float]] = [{} for _ in range(count)]
        self.leading: dict[int, tuple[int, float, Outcome]] = {}
        """Of each target the decade, what it is judged by and the outcome, not to hold them all."""
        self.warnings: dict[int, list[str]] = {}

    def judge(self, decade: int) -> list[list[float]]:
        """Return for each outcome what it is judged by, on every batch."""
        module = unwrap_module(self._problem.module, root=True)
        told = self.warnings[decade] = []
        verdicts = []
        for place, outcome in enumerate(self._attempt(10.0**decade, told.append)):
            with undisturbed(module), _written(self._problem, outcome):
                ways = [self._held_out.judge(module, way) for way in self._statistics]
            each = [list(compress(way, self._sound)) for way in ways]
            found = min(each, key=lambda way: mean_loss([verdict.by for verdict in way]))
            verdicts.append([verdict.by for verdict in found])
            self._losses[place][decade] = mean_loss([verdict.loss for verdict in found])
            mean = mean_loss(verdicts[-1])
            if place not in self.leading or mean < self.leading[place][1]:
                self.leading[place] = decade, mean, outcome
        return verdicts

    def means(
        self, place: int, tried: Mapping[int, Sequence[float]]
    ) -> dict[int, tuple[float, float]]:
        """Return of every decade what an outcome is judged by, and its loss."""
        losses = self._losses[place]
        return {decade: (mean_loss(each), losses[decade]) for decade, each in tried.items()}


def _tell(note: str, warnings: Iterable[str]) -> None:
    _LOGGER.info(note)
    for warning in dict.fromkeys(warnings):
        _LOGGER.warning(warning)


def _finite(owner: str, losses: Sequence[float]) -> list[bool]:
    """Which batches have a finite loss before anything is pruned; not all of them need have."""
    sound = [math.isfinite(loss) for loss in losses]
    if not any(sound):
        raise RuntimeError(
            f"{owner}: damp: auto judges by batches kept out, and before anything is pruned the "
            "loss is not finite on any of them; check the loss and the data of the grad_sampler, "
            "or give a number for damp"
        )
    if not all(sound):  # as sampling skips them
        text = "%s: damp: auto leaves out %d of %d batches whose loss is not finite"
        _LOGGER.warning(text, owner, len(sound) - sum(sound), len(sound))
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
    held_out: HeldOut,
    means: Mapping[int, tuple[float, float]],
) -> str:
    goal = f" at sparsity {asked[0]:.4g}" if len(set(asked)) == 1 else ""
    both = held_out.measure != "loss"
    tried = [
        f"1e{decade}: {mean:.4g}" + f" (loss {loss:.4g})" * both
        for decade, (mean, loss) in means.items()
    ]
    return (
        f"{owner}{goal}: damp: auto chose 1e{best} of the Fisher matrix's mean diagonal, by the "
        f"{held_out.measure} on {held_out.samples} samples kept out of it ({', '.join(tried)})"
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
