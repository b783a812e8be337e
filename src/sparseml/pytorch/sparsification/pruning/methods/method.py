"""How a pruner decides: the problem that it is given, and the methods that solve it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.budgets import Budget, Global
from sparseml.pytorch.functional.patterns import Pattern
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.functional.selection import require_numbers
from sparseml.pytorch.sparsification.declared_state import gather_progress, restore_progress
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.sampling.sample_capture import Gradients
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value
from sparseml.utils.text import few

_LOGGER = logging.getLogger(__name__)
_SHOWN = 5

Target = float | list[float]
"""A sparsity for all parameters, or one for each."""


@dataclass(frozen=True)
class Problem:
    """What is to be pruned, and how.

    Methods see every weight as ``[out, in, *kernel]``, whatever the layer's own layout, and whole
    also where parameters are sharded.

    :param module: the model
    :param masks: its parameters with their present masks
    :param pattern: what is pruned together
    :param budget: how much goes from which parameter
    :param sampler: where gradients come from, None if there is no source
    :param only: positions of the parameters to decide on, None for all; the others keep their masks
    :param spread_ties: among weights that are zero already, spread out what goes, as SparseML 1.x
        does, instead of taking the last
    :param ahead: whether training follows
    :param near: the decade of the dampening that was best a step before, if there was one
    """

    module: Module
    masks: MaskSet
    pattern: Pattern
    budget: Budget
    sampler: GradientSampler | None = None
    only: tuple[int, ...] | None = None
    spread_ties: bool = True
    ahead: bool = False
    near: int | None = None

    @cached_property
    def found(self) -> list[NamedLayerParam]:
        """The parameters to decide on."""
        found = self.masks.found
        return found if self.only is None else [found[index] for index in self.only]

    @cached_property
    def names(self) -> list[str]:
        """Their names."""
        names = self.masks.full_names
        return names if self.only is None else [names[index] for index in self.only]

    @cached_property
    def weights(self) -> list[Tensor]:
        """Their values."""
        params = self.masks.params if self.only is None else [one.param for one in self.found]
        value = full_value if self.masks.sharded else Tensor.detach
        values = [value(param) for param in params]
        return self.turned(values) if self.masks.swapped else values

    @cached_property
    def live(self) -> list[Tensor]:
        """Which of their weights are still there, bool: neither masked nor zero."""
        masks = self.masks.masks
        if self.only is not None:
            masks = [masks[index] for index in self.only]
        if self.masks.sharded:
            masks = [full_value(mask) for mask in masks]
        if self.masks.swapped:
            masks = self.turned(masks)
        return [mask & (weight != 0) for mask, weight in zip(masks, self.weights, strict=True)]

    def present(self) -> list[float]:
        """Return the sparsity that there is: of each parameter, or of all where ranked together."""
        sizes = [live.numel() for live in self.live]
        gone = [live.numel() - int(live.sum()) for live in self.live]
        if self.budget.joint:
            return [sum(gone) / sum(sizes)] * len(sizes)
        return [part / size for part, size in zip(gone, sizes, strict=True)]

    def one_each(self, target: Target) -> list[float]:
        """Return a target for each parameter."""
        return [target] * len(self.found) if isinstance(target, float) else list(target)

    def select(
        self,
        scores: Sequence[Tensor],
        target: Target,
        only: Sequence[int] | None = None,
        keep_zeros: bool = False,
    ) -> list[Tensor]:
        """Decide what goes by its scores; see :func:`~sparseml.pytorch.functional.select.select`.

        :param scores: one tensor for each parameter, in ``[out, in, *kernel]``
        :param only: positions of the parameters that are decided on
        :param keep_zeros: what is gone stays gone, and goes first
        :return: masks (bool), True = keep
        """
        try:
            return select(
                scores,
                self.pattern,
                self.budget,
                target,
                live=self.live if keep_zeros or only is not None else None,
                only=only,
                spread_ties=self.spread_ties,
                names=self.names,
            )
        except ValueError:
            for name, weight in zip(self.names, self.weights, strict=True):
                require_numbers(weight, f"weights of {name}")
            raise

    def outcome(
        self, masks: Sequence[Tensor], weights: Sequence[Tensor | None] | None = None
    ) -> Outcome:
        """Return masks and new weights, given as ``[out, in, *kernel]``, as an outcome.

        Parameters that are not decided on keep their masks.
        """
        new: Sequence[Any] = [None] * len(masks) if weights is None else weights
        if self.masks.swapped:
            masks, new = self.turned(masks), self.turned(new)
        decided = Outcome(zip(self.names, map(Change, masks, new), strict=True))
        if self.only is None:
            return decided
        return Outcome(
            (name, decided[name] if name in decided else Change(full_value(mask)))
            for name, mask in zip(self.masks.full_names, self.masks.masks, strict=True)
        )

    def gradients(self, count: int, indices: Sequence[int] | None = None) -> Iterator[Gradients]:
        """Sample gradients, ``[n, out, in, *kernel]`` each.

        Call :meth:`require_sound` after the loop.

        :param indices: positions of the parameters whose gradients are wanted, None for all
        :raises RuntimeError: without a sampler, and naming a parameter that has no gradient
        """
        if self.sampler is None:
            raise RuntimeError("this method needs a grad_sampler")
        everything = list(range(len(self.found)))
        used = everything if indices is None else list(indices)
        sampled = self.sampler.gradients(self.module, [self.found[index] for index in used], count)
        if used == everything and not self.masks.swapped:
            return sampled

        def turned(one: Gradients, index: int) -> Tensor:
            found, grads = self.found[index], one.of(used.index(index))
            return to_out_in(found.layer, found.param_name, grads, batch_dims=1)

        return (Gradients(one.count, partial(turned, one)) for one in sampled)

    def require_finite(self, owner: str) -> None:
        """Check the weights before gradients are sampled, which would not be finite either.

        :param owner: the modifier, for the message
        :raises ValueError: naming the first parameter with values that are not finite
        """
        for name, weight in zip(self.names, self.weights, strict=True):
            if not bool(weight.isfinite().all()):
                raise ValueError(f"{owner}: weights of {name} are not all finite")

    def require_sound(self) -> None:
        """Raise a RuntimeError, on all ranks, if too many sampled gradients were not finite."""
        if self.sampler is not None:
            self.sampler.require_sound()

    @property
    def same_gradients(self) -> bool:
        """Whether gradients are the same in all processes."""
        return self.sampler is None or self.sampler.same_on_all_ranks

    def restricted(self, only: Sequence[int] | None) -> Problem:
        """Return the problem of deciding on some of the parameters; None for all."""
        return self if only is None else replace(self, only=tuple(only))

    def turned(self, tensors: Sequence[Tensor | None]) -> list[Any]:
        """Turn tensors in the parameters' own layouts to ``[out, in, *kernel]``, or back."""
        return [
            None if each is None else to_out_in(one.layer, one.param_name, each)
            for one, each in zip(self.found, tensors, strict=True)
        ]


class Method:
    """How it is decided what goes, and how the rest makes up for it.

    A method that ranks single weights says :meth:`scores`; others override :meth:`decide`. A method
    may keep what it has seen from step to step, and changes nothing else: it returns outcomes.
    Attributes that a resumed run needs are named in ``_progress``.
    """

    _progress: ClassVar[tuple[str, ...]] = ()

    samples: ClassVar[bool] = False
    """Whether it needs gradients sampled from data."""

    keeps_zeros: ClassVar[bool] = False
    """Whether weights that are zero stay so, and targets are never below the sparsity present."""

    def describe(self, problem: Problem) -> str:
        """Return what a decision will take, for the log; "" for nothing worth saying.

        :raises RuntimeError: where that is more than there is
        """
        return ""

    def observe(self, masks: MaskSet) -> None:
        """Look at the gradients of a training step, before the optimizer moves the weights."""

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        """Return the outcome for each target, from one estimate. Change nothing.

        :param targets: sparsities; see :data:`Target`
        :param only: positions of the parameters to decide on; the others keep their masks
        :raises ValueError: naming the parameter, for weights or scores that are no numbers
        """
        scores = self.scores(problem)
        return [
            problem.outcome(problem.select(scores, target, only, self.keeps_zeros))
            for target in targets
        ]

    def outcomes(self, problem: Problem, targets: Sequence[Target]) -> list[Outcome]:
        """Return what :meth:`decide` does; with ``keeps_zeros`` no target is below the present.

        Where all weights that a single target wants gone are gone already, nothing is estimated.
        """
        if self.keeps_zeros:
            present = problem.present()
            targets = [list(map(max, present, problem.one_each(target))) for target in targets]
            if targets == [present]:
                return [problem.outcome(problem.live)]
        decided = self.decide(problem, targets)
        if isinstance(problem.budget, Global) and problem.budget.floor:
            for outcome, target in zip(decided, targets, strict=True):
                _tell_floors(problem, problem.budget, outcome, target)
        return decided

    def scores(self, problem: Problem) -> list[Tensor]:
        """Return a score for each weight; the lowest go."""
        raise NotImplementedError(f"{type(self).__name__} has neither scores nor decide")

    def end(self) -> None:
        """Free what is no longer needed when pruning has ended."""

    def progress_state(self) -> dict[str, Any]:
        """Return what has been collected so far, as plain data and tensors."""
        return gather_progress(self)

    def load_progress_state(self, state: dict[str, Any]) -> None:
        """Restore :meth:`progress_state`."""
        restore_progress(self, state)


def _tell_floors(problem: Problem, budget: Global, outcome: Outcome, target: Target) -> None:
    """Log, and note in the outcome, which parameters a budget's floor has kept from more."""
    told = []
    for name, asked in zip(problem.names, problem.one_each(target), strict=True):
        mask = outcome[name].mask
        kept, least = int(mask.sum()), mask.numel() - budget.cap(mask.numel(), asked)
        if kept <= 1.01 * least:
            told.append(f"{name} ({kept} of {mask.numel()})")
    if told:
        note = "layer_floor kept weights that ranking all together would have pruned, in "
        note += few(told, _SHOWN)
        _LOGGER.info(note)
        outcome.notes = (*outcome.notes, note)
