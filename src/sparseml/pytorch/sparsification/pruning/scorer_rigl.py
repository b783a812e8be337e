"""Scores for dropping small connections and growing those that gradients ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from sparseml.pytorch.functional.rigl import connections_to_keep, drop_and_grow_scores
from sparseml.pytorch.sparsification.pruning.distributed import sum_over_ranks
from sparseml.pytorch.sparsification.pruning.grad_sampling import GradientSource, undisturbed
from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask
from sparseml.pytorch.sparsification.pruning.scorer import PruningParamsGradScorer

__all__ = ["RigLPruningParamsScorer"]


class RigLPruningParamsScorer(PruningParamsGradScorer):
    """The largest weights stay; magnitudes of gradients, summed over samples, rank the others.

    :param dist_backend: as in the base class
    :param source: where :meth:`prepare` gets gradients from
    """

    def __init__(
        self,
        params: Sequence[Parameter],
        dist_backend: str | None = None,
        source: GradientSource | None = None,
    ) -> None:
        super().__init__(params, dist_backend)
        self._source = source
        self._gradients: list[Tensor] = []
        self._kept: list[int] = []

    def prepare(
        self,
        module: Module,
        masks: ModuleParamPruningMask,
        pruned: Sequence[int],
        replaced: float,
        num_grads: int,
    ) -> None:
        """Get ready to score for an update.

        :param module: the model to sample gradients of, unless nothing is replaced
        :param masks: the present masks; while sampling they let all gradients pass
        :param pruned: how many weights of each parameter the coming masks prune
        :param replaced: the fraction of connections to drop and grow
        :param num_grads: samples to sum up
        :raises RuntimeError: if more than a tenth of the gradients are not finite
        """
        self.set_params(masks.params)
        self._gradients = [torch.zeros_like(param).detach() for param in self._params]
        self._kept = [
            connections_to_keep(param.numel(), count, replaced)
            for param, count in zip(self._params, pruned, strict=True)
        ]
        if self._source is None or not replaced:
            return
        in_force, masks.enabled = masks.enabled, False
        try:
            with undisturbed(module):
                for gradients in self._source.gradients(module, self._params, num_grads):
                    self._add(gradients)
        finally:
            masks.enabled = in_force

    def progress_state(self) -> dict[str, Any]:
        """Adds how far the samples have come."""
        source = {} if self._source is None else {"source": self._source.progress_state()}
        return {**super().progress_state(), **source}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restores how far the samples have come."""
        super().load_progress_state(state)
        if self._source is not None and "source" in state:
            self._source.load_progress_state(state["source"])

    def score_parameters(self) -> list[Tensor]:
        """A score per weight, summed over samples and ranks, at least float32.

        :raises RuntimeError: before :meth:`prepare`
        """
        if not self._gradients:
            raise RuntimeError(f"{type(self).__name__} has no gradients yet; call prepare first")
        gradients, self._gradients = sum_over_ranks(self._gradients), []
        return [
            drop_and_grow_scores(param, gradient, kept)
            for param, gradient, kept in zip(self._params, gradients, self._kept, strict=True)
        ]

    def _add(self, gradients: Iterable[Tensor | None]) -> None:
        for total, gradient in zip(self._gradients, gradients, strict=True):
            if gradient is not None:
                total.add_(gradient)
