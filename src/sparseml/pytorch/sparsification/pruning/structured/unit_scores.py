"""Methods that rank whole units, and leave the counting of units to shares of groups."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.budgets import UnitShares
from sparseml.pytorch.functional.patterns import Member, Units
from sparseml.pytorch.functional.second_order.gates import damped, made_up, removal_losses
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.units.removable import Removable
from sparseml.pytorch.utils.distributed import sum_over_ranks, world_size

Plan = Callable[[Module, list[Tensor]], list[float]]
"""Given a model and the losses of removing units of each group, returns the share of each to go."""


class UnitMethod(Method):
    """Whole units go, of each group a share.

    :param units: what can go, in the order of the pattern's groups
    :param plan: decides at the first decision which share of each group goes in the end; None: all
        groups lose the target's
    """

    _progress: ClassVar[tuple[str, ...]] = ("_shares",)

    def __init__(self, units: Sequence[Removable], plan: Plan | None = None) -> None:
        self._units, self._plan = list(units), plan
        self._shares: list[float] | None = None

    @property
    def shares(self) -> list[float]:
        """Of each group, the share of units that goes at a target of 1."""
        return [1.0] * len(self._units) if self._shares is None else self._shares

    @property
    def planned(self) -> bool:
        """Whether it is known which shares go."""
        return self._plan is None or self._shares is not None

    @abstractmethod
    def unit_scores(self, problem: Problem, gone: Sequence[Tensor]) -> list[Tensor]:
        """Return a score for each unit of each group; the lowest go."""

    def losses(self, scores: Sequence[Tensor]) -> list[Tensor]:
        """Return what it costs when a unit has gone, and all with lower scores of its group.

        The losses of different groups can be compared.
        """
        summed = []
        for score in scores:
            order = score.argsort(stable=True)
            summed.append(torch.empty_like(score).scatter(0, order, score[order].cumsum(0)))
        return summed

    def outcomes(self, problem: Problem, targets: Sequence[Target]) -> list[Outcome]:
        return self.decide(problem, targets)

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        pattern, budget = cast(Units, problem.pattern), cast(UnitShares, problem.budget)
        weights = problem.weights
        masks = (
            problem.turned(problem.masks.masks) if problem.masks.swapped else (problem.masks.masks)
        )
        gone = [~kept for kept in kept_units(pattern, masks)]
        scores = self.unit_scores(problem, gone)
        if self._plan is not None and self._shares is None:
            self._shares = self._plan(problem.module, self.losses(scores))
        budget = replace(budget, shares=tuple(self.shares))
        pattern = replace(pattern, given=tuple(scores))
        found = []
        for target in targets:
            new = select(weights, pattern, budget, target, live=masks, names=problem.names)
            found.append(problem.outcome(new, self.made_up(problem, new, gone)))
        return found

    def made_up(
        self, problem: Problem, masks: Sequence[Tensor], gone: Sequence[Tensor]
    ) -> Sequence[Tensor | None] | None:
        """Return the new weights of those that make up for what goes; None for none."""
        return None


def kept_units(pattern: Units, masks: Sequence[Tensor]) -> list[Tensor]:
    """Return for each group which of its units masks have left, bool ``[units]`` on the CPU.

    :param masks: of all tensors, ``[out, in, *kernel]``, True = keep
    """
    found = []
    for group, count in zip(pattern.groups, pattern.counts, strict=True):
        kept = torch.zeros(count, dtype=torch.bool)
        for member in group:
            moved = masks[member.tensor].movedim(member.dim, 0)
            slices = moved.reshape(len(moved), -1).any(dim=1).cpu()
            units = member.units.cpu()
            kept[units[slices & (units >= 0)]] = True
        found.append(kept)
    return found


class UnitMagnitude(UnitMethod):
    """The units go that are made by small weights.

    The norms of a unit's slices are summed over the matrices and kernels that make it. Biases and
    the scales of norms, whose numbers are of another size, have no say, and neither has what reads
    the unit. To compare groups, what a group loses is a share of its squares.
    """

    def unit_scores(self, problem: Problem, gone: Sequence[Tensor]) -> list[Tensor]:
        pattern, found = cast(Units, problem.pattern), []
        for group, units, count in zip(pattern.groups, self._units, pattern.counts, strict=True):
            total = torch.zeros(count, dtype=torch.float64)
            for member in group:
                weight, name = problem.weights[member.tensor], problem.names[member.tensor]
                if weight.ndim > 1 and name not in units.readers:
                    total += per_unit(member, count, weight.double().square()).sqrt()
            found.append(total)
        return found

    def losses(self, scores: Sequence[Tensor]) -> list[Tensor]:
        least = torch.finfo(torch.float32).tiny
        squares = [score.square() for score in scores]
        return super().losses([one / max(float(one.sum()), least) for one in squares])


class UnitTaylor(UnitMethod):
    """The units go whose removal changes the loss least to first order.

    The score is the mean over gradients of what the gate of a unit has: the sum of gradient times
    weight over the slices that read it, by its size (Molchanov et al., "Importance estimation for
    neural network pruning", 2019).

    :param num_grads: gradients to sample, on all ranks together
    """

    samples = True

    def __init__(
        self, units: Sequence[Removable], plan: Plan | None = None, num_grads: int = 64
    ) -> None:
        super().__init__(units, plan)
        self._num_grads = num_grads

    def unit_scores(self, problem: Problem, gone: Sequence[Tensor]) -> list[Tensor]:
        sums = [torch.zeros(len(one), dtype=torch.float64) for one in gone]
        for gates in self._gate_gradients(problem):
            for total, gate in zip(sums, gates, strict=True):
                total += gate.abs().sum(dim=0)
        problem.require_sound()
        return [total / self._num_grads for total in self._over_ranks(problem, sums)]

    def _over_ranks(self, problem: Problem, sums: list[Tensor]) -> list[Tensor]:
        return sums if problem.same_gradients or world_size() == 1 else sum_over_ranks(sums)

    def _gate_gradients(self, problem: Problem) -> Iterator[list[Tensor]]:
        """Yield the gradients of gates on the units, ``[samples, units]`` for each group."""
        pattern, names = cast(Units, problem.pattern), problem.names
        reading = [
            [member for member in group if names[member.tensor] in units.readers]
            for group, units in zip(pattern.groups, self._units, strict=True)
        ]
        places = sorted({member.tensor for group in reading for member in group})
        for one in problem.gradients(self._num_grads, places):
            products = {
                place: (one.of(place) * problem.weights[place]).double() for place in places
            }
            yield [
                torch.stack([_gates(group, count, products, n) for n in range(one.count)])
                for group, count in zip(reading, pattern.counts, strict=True)
            ]


def _gates(
    group: Sequence[Member], count: int, products: Mapping[int, Tensor], sample: int
) -> Tensor:
    total = torch.zeros(count, dtype=torch.float64)
    for member in group:
        total += per_unit(member, count, products[member.tensor][sample])
    return total


class UnitSurgeon(UnitTaylor):
    """The units go whose removal costs least to second order, and the others make up for them.

    See :mod:`~sparseml.pytorch.functional.second_order.gates`; each group has a Fisher matrix of
    its own.

    :param damp: what is added to the diagonal of a Fisher matrix, as a share of its mean
    """

    def __init__(
        self,
        units: Sequence[Removable],
        plan: Plan | None = None,
        num_grads: int = 64,
        damp: float = 0.1,
    ) -> None:
        super().__init__(units, plan, num_grads)
        self._damp = damp
        self._fishers: list[Tensor] = []

    def unit_scores(self, problem: Problem, gone: Sequence[Tensor]) -> list[Tensor]:
        sums = [torch.zeros(len(one), len(one), dtype=torch.float64) for one in gone]
        for gates in self._gate_gradients(problem):
            for total, gate in zip(sums, gates, strict=True):
                total += gate.T @ gate
        problem.require_sound()
        sums = self._over_ranks(problem, sums)
        self._fishers = [damped(total / self._num_grads, self._damp) for total in sums]
        pairs = zip(self._fishers, gone, strict=True)
        return [removal_losses(fisher, one) for fisher, one in pairs]

    def losses(self, scores: Sequence[Tensor]) -> list[Tensor]:
        return list(scores)

    def made_up(
        self, problem: Problem, masks: Sequence[Tensor], gone: Sequence[Tensor]
    ) -> Sequence[Tensor | None] | None:
        pattern, names = cast(Units, problem.pattern), problem.names
        new: list[Tensor | None] = [None] * len(masks)
        kept = kept_units(pattern, masks)
        for number, group in enumerate(pattern.groups):
            gates = made_up(self._fishers[number], kept[number], ~gone[number])
            for member in group:
                if names[member.tensor] in self._units[number].readers:
                    before = new[member.tensor]
                    weight = problem.weights[member.tensor] if before is None else before
                    new[member.tensor] = weight * _spread(member, gates, weight)
        return [None if one is None else one * mask for one, mask in zip(new, masks, strict=True)]

    def end(self) -> None:
        self._fishers = []


def per_unit(member: Member, count: int, values: Tensor) -> Tensor:
    """Return the sums of values over the slices of each unit, ``[count]`` on the CPU.

    :param values: of the member's tensor, ``[out, in, *kernel]``
    """
    moved = values.movedim(member.dim, 0)
    slices = moved.reshape(len(moved), -1).sum(dim=1).cpu()
    units = member.units.cpu()
    inside = units >= 0
    return torch.zeros(count, dtype=slices.dtype).index_add(0, units[inside], slices[inside])


def _spread(member: Member, gates: Tensor, weight: Tensor) -> Tensor:
    units = member.units.cpu()
    factors = torch.where(units >= 0, gates.cpu()[units.clamp_min(0)], 1.0)
    shape = [1] * weight.ndim
    shape[member.dim] = -1
    return factors.to(weight).reshape(shape)


def method_for(
    score: str, units: Sequence[Removable], plan: Plan | None, num_grads: int
) -> UnitMethod:
    """Return the method of a score: ``magnitude``, ``taylor`` or ``obs``."""
    if score == "magnitude":
        return UnitMagnitude(units, plan)
    kinds: dict[str, Any] = {"taylor": UnitTaylor, "obs": UnitSurgeon}
    method: UnitMethod = kinds[score](units, plan, num_grads)
    return method


UNIT_SCORES = ("magnitude", "taylor", "obs")
"""By what whole units may be ranked."""
