"""Pruning whole rows or columns from gradients of their masks, without training after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns import PerTensor
from sparseml.pytorch.functional.scores import mask_gradients
from sparseml.pytorch.functional.selection import rearranged
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.utils.distributed import process_rank, sum_over_ranks, world_size


class RetrainFree(Method):
    """The units go whose masks have the least Fisher information, and that go well together.

    Kwon et al., "A fast post-training pruning framework for Transformers" (2022): a unit's score is
    the sum over batches of its mask's squared gradient; then, parameter by parameter and at the
    same sparsity, units are exchanged so that the gradients of the pruned ones cancel out.

    The pattern must cut tensors into few units, as whole rows or columns are.

    :param num_grads: batches to sample gradients from, on all ranks together
    """

    samples = True
    keeps_zeros = True

    def __init__(self, num_grads: int) -> None:
        self._num_grads = num_grads

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        pattern, gradients = cast(PerTensor, problem.pattern), self._gradients(problem)
        pairs = list(zip(gradients, problem.weights, strict=True))
        scores = [pattern.spread(each.square().sum(0), weight.shape) for each, weight in pairs]
        gone = [pattern.live_size(live) == 0 for live in problem.live]
        outcomes = []
        for target in targets:
            masks = problem.select(scores, target, only, self.keeps_zeros)
            kept = [pattern.live_size(mask) > 0 for mask in masks]
            for place in range(len(masks)) if only is None else only:
                flat = gradients[place].flatten(1)
                units = rearranged(kept[place].flatten(), flat, gone[place].flatten())
                spread = pattern.spread(units.view_as(kept[place]), masks[place].shape)
                masks[place] = spread & problem.live[place]
            outcomes.append(problem.outcome(masks))
        return outcomes

    def _gradients(self, problem: Problem) -> list[Tensor]:
        """Gradients of the masks, ``[batches, *units]`` for each parameter."""
        pattern, rows = cast(PerTensor, problem.pattern), []
        for one in problem.gradients(self._num_grads):
            pairs = enumerate(problem.weights)
            rows.append([mask_gradients(weight, one.of(i)[0], pattern) for i, weight in pairs])
        problem.require_sound()
        if problem.same_gradients:
            return [torch.stack(each) for each in zip(*rows, strict=True)]
        # each rank has every so many-th row; of the others zeros
        gathered = []
        for place, weight in enumerate(problem.weights):
            blank = mask_gradients(weight, weight, pattern)
            whole = blank.new_zeros(self._num_grads, *blank.shape)
            for number, row in enumerate(rows):
                whole[number * world_size() + process_rank()] = row[place]
            gathered.append(whole)
        return sum_over_ranks(gathered)
