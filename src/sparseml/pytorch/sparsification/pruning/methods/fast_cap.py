"""FastCAP: weights pruned column by column, with one small Fisher matrix each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.functional.second_order.fast_cap import ReducedFisher, fast_cap
from sparseml.pytorch.functional.selection import lowest_mask, prune_count
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import (
    FisherSettings,
    require_free,
)
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.sparsification.pruning.methods.trials import best_of_decades
from sparseml.pytorch.sparsification.pruning.settings.memory import describe_bytes
from sparseml.pytorch.utils.distributed import add_up, is_distributed, process_rank, world_size

_LOGGER = logging.getLogger(__name__)
_COPIES = 5
"""Of a weight, while it is pruned: itself, its blocks, two ways to lay them out, and errors."""


class FastCAP(Method):
    """Prunes every parameter to its own target, column by column.

    In a distributed run each rank adds up its own gradients for all parameters, and the sums, of B
    x B values each, are added up once; then each rank prunes its part of the parameters.

    :param owner: the modifier, for messages
    :param block_size: B
    :param columns: columns that share a threshold and an update; None for all B
    :param settings: how the Fisher matrices are estimated; ``damp`` is relative
    """

    samples = True
    keeps_zeros = True

    def __init__(
        self, owner: str, block_size: int, columns: int | None, settings: FisherSettings
    ) -> None:
        self._owner, self._block_size = owner, block_size
        self._columns, self._settings = columns, settings

    def describe(self, problem: Problem) -> str:
        layouts = [block_layout(weight.shape, self._block_size) for weight in problem.weights]
        needed: dict[torch.device, int] = {}
        for weight, layout in zip(problem.weights, layouts, strict=True):
            device = self._settings.device or weight.device
            size = layout.block_size**2 * self._settings.dtype.itemsize
            needed[device] = needed.get(device, 0) + size
        largest = max(weight.numel() for weight in problem.weights)
        advice = "Use a smaller fisher_block_size, or fisher_inv_device: cpu"
        for device in needed:
            needed[device] += _COPIES * largest * self._settings.dtype.itemsize
            require_free(self._owner, "Fisher matrices", needed[device], device, advice)
        total = describe_bytes(sum(needed.values()))
        return f"Fisher matrices of {len(layouts)} parameters take {total}, all at a time"

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        problem = problem.restricted(only)
        problem.require_finite(self._owner)
        fishers = cache(partial(self._fishers, problem))

        def attempt(asked: float, warn: Callable[[str], None]) -> list[Outcome]:
            outcomes = []
            for target in targets:
                wanted = problem.one_each(target)
                pruned = [
                    self._pruned(problem, index, fisher, wanted[index], asked)
                    for index, fisher in enumerate(fishers())
                ]
                damp = max(damp for _, _, damp in pruned)
                if damp > asked * (1 + 1e-6):
                    warn(
                        f"{self._owner}: a Fisher matrix was not positive definite with damp "
                        f"{asked:g}; it took {damp:g}"
                    )
                masks, weights = [k for k, _, _ in pruned], [w for _, w, _ in pruned]
                outcomes.append(problem.outcome(masks, weights))
            return outcomes

        if not self._settings.auto:
            return attempt(self._settings.damp, _LOGGER.warning)
        return best_of_decades(self._owner, problem, targets, self._settings.num_grads, attempt)

    def _fishers(self, problem: Problem) -> list[ReducedFisher]:
        fishers = [
            ReducedFisher(
                block_layout(weight.shape, self._block_size),
                mask=live,
                dtype=self._settings.dtype,
                device=self._settings.device or weight.device,
            )
            for weight, live in zip(problem.weights, problem.live, strict=True)
        ]
        for one in problem.gradients(self._settings.num_grads):
            for index, fisher in enumerate(fishers):
                fisher.accumulate(one.of(index))
        problem.require_sound()
        if not problem.same_gradients:
            for fisher in fishers:
                _add_over_ranks(fisher)
        return fishers

    def _pruned(
        self, problem: Problem, index: int, fisher: ReducedFisher, sparsity: float, damp: float
    ) -> tuple[Tensor, Tensor, float]:
        """Mask, weight and relative dampening of one parameter; one rank does the work."""
        weight, live = problem.weights[index], problem.live[index]
        count = max(prune_count(weight.numel(), sparsity), int((~live).sum()))
        new, keep = torch.zeros_like(weight), torch.zeros_like(live)
        if index % world_size() == process_rank():
            if bool(fisher.products.any()):
                new, keep, damp = fast_cap(
                    weight, fisher, count, damp=damp, mask=live, columns=self._columns
                )
            else:
                text = "%s: all gradients of %s are zero, so that its smallest weights go"
                _LOGGER.warning(text, self._owner, problem.names[index])
                keep = lowest_mask(torch.where(live, weight.abs(), -1.0), count)
                new = weight * keep
        if is_distributed():
            new = add_up(new)
            keep = add_up(keep.to(torch.uint8)) != 0
        return keep, new, damp


def _add_over_ranks(fisher: ReducedFisher) -> None:
    products = fisher.products.flatten().double()
    total = add_up(torch.cat([products, products.new_tensor([fisher.count])]))
    fisher.products.copy_(total[:-1].view_as(fisher.products))
    fisher.count = int(total[-1])
