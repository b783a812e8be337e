"""Scores for dropping small connections and growing those that gradients ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from sparseml.pytorch.functional.rigl import connections_to_keep, drop_and_grow_scores
from sparseml.pytorch.sparsification.pruning.distributed import sum_over_ranks
from sparseml.pytorch.sparsification.pruning.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask
from sparseml.pytorch.sparsification.pruning.scorer import PruningParamsGradScorer
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import full_value

__all__ = ["RigLPruningParamsScorer"]


class RigLPruningParamsScorer(PruningParamsGradScorer):
    """The largest weights stay; magnitudes of gradients, summed over samples, rank the others.

    :param dist_backend: as in the base class
    :param sampler: where :meth:`prepare` gets gradients from
    """

    def __init__(
        self,
        params: Sequence[Parameter],
        dist_backend: str | None = None,
        sampler: GradientSampler | None = None,
    ) -> None:
        super().__init__(params, dist_backend)
        self._sampler = sampler
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
        :param num_grads: gradients to sum up, on all ranks together
        :raises RuntimeError: if more than a tenth of the gradients are not finite
        """
        params = masks.params
        self._kept = [
            connections_to_keep(param.numel(), count, replaced)
            for param, count in zip(params, pruned, strict=True)
        ]
        self._gradients = [
            torch.zeros(param.shape, dtype=param.dtype, device=param.device) for param in params
        ]
        if self._sampler is None or not replaced:
            return
        in_force, masks.enabled = masks.enabled, False
        try:
            self._add_samples(self._sampler, module, masks, num_grads)
        finally:
            masks.enabled = in_force

    def progress_state(self) -> dict[str, Any]:
        """Adds how far the samples have come."""
        samples = {} if self._sampler is None else {"samples": self._sampler.progress_state()}
        return {**super().progress_state(), **samples}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restores how far the samples have come."""
        super().load_progress_state(state)
        if self._sampler is not None and "samples" in state:
            self._sampler.load_progress_state(state["samples"])

    def score_parameters(self) -> list[Tensor]:
        """A score per weight, summed over samples and ranks, at least float32.

        :raises RuntimeError: before :meth:`prepare`
        """
        if not self._gradients:
            raise RuntimeError(f"{type(self).__name__} has no gradients yet; call prepare first")
        gradients, self._gradients = self._gradients, []
        return [
            drop_and_grow_scores(full_value(param), gradient, kept)
            for param, gradient, kept in zip(self._params, gradients, self._kept, strict=True)
        ]

    def _add_samples(
        self, sampler: GradientSampler, module: Module, masks: ModuleParamPruningMask, count: int
    ) -> None:
        parts = (masks.layer_names, masks.layers, masks.param_names, masks.params)
        found = [NamedLayerParam(*each) for each in zip(*parts, strict=True)]
        for gradients in sampler.gradients(module, found, count):
            for index, total in enumerate(self._gradients):
                total.add_(gradients.of(index).sum(0))
        sampler.require_sound()
        if not sampler.same_on_all_ranks:
            self._gradients = sum_over_ranks(self._gradients)
