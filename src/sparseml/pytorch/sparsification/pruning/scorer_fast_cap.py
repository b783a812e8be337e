"""FastCAP: weights pruned column by column, with one small Fisher matrix each."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from sparseml.pytorch.functional.block_layout import block_layout
from sparseml.pytorch.functional.fast_cap import ReducedFisher, fast_cap
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.sparsification.pruning.distributed import is_distributed
from sparseml.pytorch.sparsification.pruning.fisher_passes import FisherSettings
from sparseml.pytorch.sparsification.pruning.memory import describe_bytes, require_free
from sparseml.pytorch.sparsification.pruning.ranks import add_up, process_rank, world_size
from sparseml.pytorch.sparsification.pruning.scorer_sampled import Cut, SampledScorer, Subject

__all__ = ["FastCAPruningParamsScorer"]

_LOGGER = logging.getLogger(__name__)
_COPIES = 5
"""Of a weight, while it is pruned: itself, its blocks, two ways to lay them out, and errors."""


class FastCAPruningParamsScorer(SampledScorer):
    """Prunes every parameter to its own target.

    In a distributed run each rank adds up its own gradients for all parameters, and the sums, of B
    x B values each, are added up once; then each rank prunes its part of the parameters.

    :param params: the parameters
    :param owner: the modifier, for messages
    :param block_size: B
    :param columns: columns that share a threshold and an update; None for all B
    :param settings: how the Fisher matrices are estimated; ``damp`` is relative
    """

    def __init__(
        self,
        params: Sequence[Parameter],
        owner: str,
        block_size: int,
        columns: int | None,
        settings: FisherSettings,
    ) -> None:
        super().__init__(params, owner)
        self._block_size, self._columns, self._settings = block_size, columns, settings

    def describe(self, subject: Subject) -> str:
        """How much memory it takes.

        :raises RuntimeError: if that is not there
        """
        layouts = [block_layout(weight.shape, self._block_size) for weight in subject.weights]
        needed: dict[torch.device, int] = {}
        for weight, layout in zip(subject.weights, layouts, strict=True):
            device = self._settings.device or weight.device
            size = layout.block_size**2 * self._settings.dtype.itemsize
            needed[device] = needed.get(device, 0) + size
        largest = max(weight.numel() for weight in subject.weights)
        for device in needed:
            needed[device] += _COPIES * largest * self._settings.dtype.itemsize
            advice = "Use a smaller fisher_block_size, or fisher_inv_device: cpu"
            require_free(self._owner, "Fisher matrices", needed[device], device, advice)
        total = describe_bytes(sum(needed.values()))
        return f"Fisher matrices of {len(layouts)} parameters take {total}, all at a time"

    def cuts(self, subject: Subject, targets: list[list[float]]) -> list[Cut]:
        """See the base class."""
        fishers = self._fishers(subject)
        results = []
        for target in targets:
            cut, damps = Cut(), []
            for index, fisher in enumerate(fishers):
                mask, weight, damp = self._pruned(subject, index, fisher, target[index])
                cut.masks.append(mask)
                cut.weights.append(weight)
                damps.append(damp)
            self._report(max(damps))
            results.append(cut)
        self._scores = [None if w is None else w.abs() for w in results[-1].weights]
        return results

    def _fishers(self, subject: Subject) -> list[ReducedFisher]:
        fishers = [
            ReducedFisher(
                block_layout(weight.shape, self._block_size),
                mask=live,
                dtype=self._settings.dtype,
                device=self._settings.device or weight.device,
            )
            for weight, live in zip(subject.weights, subject.live, strict=True)
        ]
        sampler = self._sampler()
        for one in sampler.gradients(subject.module, subject.found, self._settings.num_grads):
            for index, fisher in enumerate(fishers):
                fisher.accumulate(one.of(index))
        sampler.require_sound()
        if not self._sampler().same_on_all_ranks:
            for fisher in fishers:
                _add_over_ranks(fisher)
        return fishers

    def _pruned(
        self, subject: Subject, index: int, fisher: ReducedFisher, sparsity: float
    ) -> tuple[Tensor, Tensor, float]:
        """Mask, weight and relative dampening of one parameter; one rank does the work."""
        weight, live = subject.weights[index], subject.live[index]
        count = max(prune_count(weight.numel(), sparsity), int((~live).sum()))
        new, keep, damp = torch.zeros_like(weight), torch.zeros_like(live), self._settings.damp
        if index % world_size() == process_rank():
            new, keep, damp = fast_cap(
                weight, fisher, count, damp=damp, mask=live, columns=self._columns
            )
        if is_distributed():
            new = add_up(new)
            keep = add_up(keep.to(torch.uint8)) != 0
        return keep, new, damp

    def _report(self, highest: float) -> None:
        if highest > self._settings.damp * (1 + 1e-6):
            _LOGGER.warning(
                "%s: a Fisher matrix was not positive definite with damp %g; it took %g",
                self._owner,
                self._settings.damp,
                highest,
            )


def _add_over_ranks(fisher: ReducedFisher) -> None:
    products = fisher.products.flatten().double()
    total = add_up(torch.cat([products, products.new_tensor([fisher.count])]))
    fisher.products.copy_(total[:-1].view_as(fisher.products))
    fisher.count = int(total[-1])
