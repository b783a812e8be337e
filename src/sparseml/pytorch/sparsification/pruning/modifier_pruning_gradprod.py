"""Gradual pruning by the product of gradient and weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter

from sparseml.pytorch.functional.scores import saliency
from sparseml.pytorch.sparsification.fields import declared_fields
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.distributed import sum_over_ranks
from sparseml.pytorch.sparsification.pruning.mask_creator import MaskType
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import GradualFields
from sparseml.pytorch.sparsification.pruning.modifier_pruning_sampled import (
    SampledPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.scorer_sampled import Cut, SampledScorer, Subject

__all__ = ["GWProdPruningModifier", "GWProdPruningParamsScorer"]


class GWProdPruningParamsScorer(SampledScorer):
    """The sum of ``|gradient * weight|`` over the gradients of one update.

    :param params: the parameters
    :param owner: the modifier, for messages
    :param num_grads: how many gradients to sum over
    """

    def __init__(self, params: Sequence[Parameter], owner: str, num_grads: int) -> None:
        super().__init__(params, owner)
        self._num_grads = num_grads

    def cuts(self, subject: Subject, targets: list[list[float]]) -> list[Cut]:
        """See the base class."""
        sums = [torch.zeros_like(saliency(weight, weight)) for weight in subject.weights]
        sampler = self._sampler()
        for one in sampler.gradients(subject.module, subject.found, self._num_grads):
            for index, (total, weight) in enumerate(zip(sums, subject.weights, strict=True)):
                total += saliency(weight, one.of(index)[0])
        sampler.require_sound()
        scores = [
            total.masked_fill(~live, -torch.inf)
            for total, live in zip(sum_over_ranks(sums), subject.live, strict=True)
        ]
        self._scores = list(scores)
        everything = range(len(scores))
        unchanged = [None] * len(scores)
        return [
            Cut(subject.decide(scores, target, everything), list(unchanged)) for target in targets
        ]


@PyTorchModifierYAML()
@declared_fields()
class GWProdPruningModifier(GradualFields, SampledPruningModifier):
    """Prunes the weights whose removal changes the loss least to first order, batch by batch.

    | Sample yaml:
    |   !GWProdPruningModifier
    |       params: __ALL_PRUNABLE__
    |       num_grads: 4096
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0

    :param num_grads: gradients to sample for each update, on all ranks together
    :raises ValueError: for a field out of its range
    """

    mask_type: MaskType = "unstructured"
    global_sparsity: bool = False
    num_grads: int = 1024
    grad_sampler_kwargs: Mapping[str, Any] | None = None

    def _get_scorer(self, params: list[Parameter]) -> GWProdPruningParamsScorer:
        return GWProdPruningParamsScorer(params, type(self).__name__, self._num_grads)
