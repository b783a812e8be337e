"""Dropping small connections and growing those that gradients ask for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseml.pytorch.functional.scores import drop_and_grow_scores
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.utils.distributed import sum_over_ranks

__all__ = ["DropAndGrow"]


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
        """Return the outcome for each target, all from one sum of gradients.

        :raises RuntimeError: if more than a tenth of the gradients are not finite
        """
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
        with problem.unmasked_gradients():
            for one in problem.gradients(self._num_grads):
                for index, total in enumerate(sums):
                    total.add_(one.of(index).sum(0))
        problem.require_sound()
        return sums if problem.same_gradients else sum_over_ranks(sums)
