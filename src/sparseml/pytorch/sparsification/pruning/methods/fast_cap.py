"""FastCAP: weights pruned column by column, with one small Fisher matrix each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor

from sparseml.pytorch.functional.second_order.blocks import BlockLayout, block_layout
from sparseml.pytorch.functional.second_order.fast_cap import ReducedFisher, fast_cap
from sparseml.pytorch.functional.second_order.input_moments import InputMoments
from sparseml.pytorch.functional.selection import lowest_mask, prune_count
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import (
    BATCHES_OF_INPUTS,
    FisherSettings,
    add_over_ranks,
    require_free,
)
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.sparsification.pruning.methods.row_passes import RowPasses, RowRule, Shared
from sparseml.pytorch.sparsification.pruning.methods.trials import best_of_decades
from sparseml.pytorch.sparsification.pruning.sampling.input_capture import input_moments
from sparseml.pytorch.sparsification.pruning.settings.memory import describe_bytes
from sparseml.pytorch.utils.distributed import add_up, is_distributed, process_rank, world_size

_LOGGER = logging.getLogger(__name__)
_COPIES = 5
"""Of a weight, while it is pruned: itself, its blocks, two ways to lay them out, and errors."""


class FastCAP(Method):
    """Prunes column by column, by a matrix that all rows of a weight share.

    In a distributed run each rank adds up its own gradients for all parameters, and the sums, of B
    x B values each, are added up once; then each rank prunes its part of the parameters.

    :param owner: the modifier, for messages
    :param block_size: B
    :param columns: columns that share a threshold and an update; None for all B
    :param settings: how the Fisher matrices are estimated; ``damp`` is relative
    :param rule: what the matrix is, and what is done by it
    """

    samples = True
    keeps_zeros = True

    def __init__(
        self,
        owner: str,
        block_size: int,
        columns: int | None,
        settings: FisherSettings,
        rule: RowRule | None = None,
    ) -> None:
        self._owner, self._block_size = owner, block_size
        self._columns, self._settings = columns, settings
        self._rule = rule or RowRule()

    def _layout(self, problem: Problem, index: int) -> BlockLayout:
        return block_layout(
            problem.weights[index].shape, self._block_size, group=self._rule.run(problem.pattern)
        )

    def describe(self, problem: Problem) -> str:
        if self._rule.fisher != "gradients":
            layouts = [one.layout for one in self._moments(problem, "meta")]
        else:
            layouts = [self._layout(problem, index) for index in range(len(problem.weights))]
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
        factors = cache(partial(self._factors, problem, fishers))

        def attempt(asked: float, warn: Callable[[str], None]) -> list[Outcome]:
            if not self._rule.plain(problem):
                passes = RowPasses(
                    problem, fishers(), self._rule, asked, self._owner, warn, factors()
                )
                return [passes.outcome(problem.one_each(target)) for target in targets]
            outcomes = []
            for target in targets:
                wanted = problem.one_each(target)
                pruned = [
                    self._pruned(problem, index, fisher, wanted[index], asked, warn)
                    for index, fisher in enumerate(fishers())
                    if isinstance(fisher, ReducedFisher)
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

    def _moments(self, problem: Problem, device: str | None = None) -> list[InputMoments]:
        """Empty moments of all parameters, on their devices."""
        settings, run = self._settings, self._rule.run(problem.pattern)
        return [
            input_moments(
                found,
                weight.shape,
                self._owner,
                run=run,
                dtype=settings.dtype,
                device=device or settings.device or weight.device,
            )
            for found, weight in zip(problem.found, problem.weights, strict=True)
        ]

    def _fishers(self, problem: Problem) -> Sequence[Shared]:
        if self._rule.fisher != "gradients":
            assert problem.sampler is not None
            moments = self._moments(problem)
            found, count = problem.found, self._settings.num_grads
            if self._rule.fisher == "both":
                count = -(-count // BATCHES_OF_INPUTS)
            problem.sampler.watch_inputs(problem.module, found, moments, count)
            if is_distributed():
                for sums in moments:
                    add_over_ranks(sums)
            return moments
        fishers = [
            ReducedFisher(
                self._layout(problem, index),
                mask=live,
                dtype=self._settings.dtype,
                device=self._settings.device or weight.device,
            )
            for index, (weight, live) in enumerate(zip(problem.weights, problem.live, strict=True))
        ]
        for one in problem.gradients(self._settings.num_grads):
            for index, fisher in enumerate(fishers):
                fisher.accumulate(one.of(index))
        problem.require_sound()
        if not problem.same_gradients:
            for fisher in fishers:
                add_over_ranks(fisher)
        return fishers

    def _factors(
        self, problem: Problem, fishers: Callable[[], Sequence[Shared]]
    ) -> list[Tensor] | None:
        """How much larger than the inputs the gradients of each row are, in the mean square."""
        if self._rule.fisher != "both":
            return None
        sums = [torch.zeros(len(weight), dtype=torch.float64) for weight in problem.weights]
        for one in problem.gradients(self._settings.num_grads):
            for index, total in enumerate(sums):
                grads = one.of(index)
                total += grads.double().square().flatten(2).sum((0, 2)).to(total.device)
        problem.require_sound()
        if not problem.same_gradients:
            sums = [add_up(total) for total in sums]
        sizes = [
            float(fisher.matrices().diagonal(dim1=1, dim2=2).sum(1).double().mean())
            for fisher in fishers()
        ]
        tiny = torch.finfo(torch.float32).tiny
        counted = self._settings.num_grads
        return [total / counted / max(size, tiny) for total, size in zip(sums, sizes, strict=True)]

    def _pruned(
        self,
        problem: Problem,
        index: int,
        fisher: ReducedFisher,
        sparsity: float,
        damp: float,
        warn: Callable[[str], None],
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
                warn(
                    f"{self._owner}: all gradients of {problem.names[index]} are zero, so that its "
                    "smallest weights go"
                )
                keep = lowest_mask(torch.where(live, weight.abs(), -1.0), count)
                new = weight * keep
        if is_distributed():
            new = add_up(new)
            keep = add_up(keep.to(torch.uint8)) != 0
        return keep, new, damp
