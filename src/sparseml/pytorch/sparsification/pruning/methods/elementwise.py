"""Methods that rank single weights: by magnitude, movement, lot; dropping and growing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns import PerTensor
from sparseml.pytorch.functional.scores import drop_and_grow_scores, movement, saliency
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.utils.distributed import sum_over_ranks
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.tensors.sharded import full_value

_LOGGER = logging.getLogger(__name__)


class Magnitude(Method):
    """The smallest weights go: Han et al., "Learning both weights and connections" (2015)."""

    def scores(self, problem: Problem) -> list[Tensor]:
        """Return absolute values, of each weight's shape and dtype."""
        return [weight.abs() for weight in problem.weights]


class Lot(Method):
    """Weights go by lot.

    :param seed: of this lot alone
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def scores(self, problem: Problem) -> list[Tensor]:
        """Return random numbers, float64, the same on every device."""
        lot = torch.Generator().manual_seed(self._seed)
        drawn = [torch.rand(w.shape, generator=lot, dtype=torch.float64) for w in problem.weights]
        return [one.to(w.device) for one, w in zip(drawn, problem.weights, strict=True)]


class KeepZeros(Method):
    """What is zero stays zero in units that are pruned, whatever the target; others are free.

    The pattern must cut each tensor by itself.
    """

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        pattern = cast(PerTensor, problem.pattern)
        there = [weight != 0 for weight in problem.weights]
        kept = [each | pattern.spread(pattern.live_size(each) > 0, each.shape) for each in there]
        return [problem.outcome(kept) for _ in targets]


class Movement(Method):
    """The weights go that training has moved towards zero, summed over all steps.

    The sum of ``-0.01 * gradient * weight`` (Sanh et al., "Movement pruning", 2020). A step whose
    gradient is not finite adds nothing. Pruned weights do not move, and are not taken back.
    """

    _progress = ("_sums",)

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._sums: list[Tensor] = []

    def observe(self, masks: MaskSet) -> None:
        self.add(masks.params)

    @torch.no_grad()
    def add(self, params: Sequence[Tensor]) -> None:
        """Add this step's movement; parameters without a gradient have none."""
        sums = self.sums_of(params)
        for index, param in enumerate(params):
            if param.grad is None:
                continue
            step = movement(param, param.grad)
            # without asking for the value, so that a GPU is not waited for
            total = sums[index].to(step.device)
            sums[index] = torch.where(step.isfinite().all(), total + step, total)
        self._sums = sums

    def sums_of(self, params: Sequence[Tensor]) -> list[Tensor]:
        """Return the sums, at least float32; zeros before the first step and for new shapes."""
        if [total.shape for total in self._sums] == [param.shape for param in params]:
            return list(self._sums)
        return [movement(param, torch.zeros_like(param)) for param in params]

    def scores(self, problem: Problem) -> list[Tensor]:
        """Return sums over steps and ranks, minus infinity where masked; at least float32."""
        sums = [full_value(total) for total in sum_over_ranks(self.sums_of(problem.masks.params))]
        if not any(bool(total.any()) for total in sums):
            text = "%s: no weight has moved yet, so nothing tells which ones to prune; the choice "
            text += "is arbitrary. Start later than the first step, and not in one shot"
            _LOGGER.warning(text, self._owner)
        return [
            to_out_in(one.layer, one.param_name, total.masked_fill(~full_value(mask), -torch.inf))
            for one, total, mask in zip(problem.found, sums, problem.masks.masks, strict=True)
        ]


class GradientTimesWeight(Method):
    """The weights go whose removal changes the loss least to first order, batch by batch.

    The score is the sum of ``|gradient * weight|`` over the gradients of one update.

    :param num_grads: how many gradients to sample, on all ranks together
    """

    samples = True
    keeps_zeros = True

    def __init__(self, num_grads: int) -> None:
        self._num_grads = num_grads

    def scores(self, problem: Problem) -> list[Tensor]:
        """Return the sums, minus infinity where weights are gone; at least float32."""
        sums = [torch.zeros_like(saliency(weight, weight)) for weight in problem.weights]
        for one in problem.gradients(self._num_grads):
            for index, (total, weight) in enumerate(zip(sums, problem.weights, strict=True)):
                total += saliency(weight, one.of(index)[0])
        problem.require_sound()
        return [
            total.masked_fill(~live, -torch.inf)
            for total, live in zip(sum_over_ranks(sums), problem.live, strict=True)
        ]


class DropAndGrow(Method):
    """The largest weights stay; magnitudes of gradients, summed over samples, rank the others.

    Evci et al., "Rigging the lottery: making all tickets winners" (2020).

    :param num_grads: gradients to sum up, on all ranks together
    """

    samples = True

    def __init__(self, num_grads: int) -> None:
        self._num_grads = num_grads
        self.replaced = 0.0
        """The fraction of connections that the next decision drops and grows."""

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        gradients = self._gradients(problem)
        outcomes = []
        for target in targets:
            wanted, scores = problem.one_each(target), []
            for weight, gradient, sparsity in zip(problem.weights, gradients, wanted, strict=True):
                active = weight.numel() - prune_count(weight.numel(), sparsity)
                kept = active - prune_count(active, self.replaced)
                scores.append(drop_and_grow_scores(weight, gradient, kept))
            outcomes.append(problem.outcome(problem.select(scores, wanted, only)))
        return outcomes

    def _gradients(self, problem: Problem) -> list[Tensor]:
        sums = [torch.zeros_like(weight) for weight in problem.weights]
        if not self.replaced:
            return sums
        # those of masked weights are let through
        in_force, problem.masks.enabled = problem.masks.enabled, False
        try:
            for one in problem.gradients(self._num_grads):
                for index, total in enumerate(sums):
                    total.add_(one.of(index).sum(0))
        finally:
            problem.masks.enabled = in_force
        problem.require_sound()
        return sums if problem.same_gradients else sum_over_ranks(sums)
