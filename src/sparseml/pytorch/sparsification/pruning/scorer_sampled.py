"""What scorers have in common that sample gradients and decide masks and new weights together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from sparseml.pytorch.sparsification.pruning.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.mask_creator_base import PruningMaskCreator
from sparseml.pytorch.sparsification.pruning.scorer import PruningParamsGradScorer
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.sharded import shard_like

__all__ = ["Cut", "SampledScorer", "Subject"]


@dataclass
class Cut:
    """The outcome for one target, per parameter.

    :param masks: bool, True = keep
    :param weights: the new weights, zero where pruned; None where they stay but for the mask
    """

    masks: list[Tensor] = field(default_factory=list)
    weights: list[Tensor | None] = field(default_factory=list)


@dataclass(frozen=True)
class Subject:
    """What is to be pruned.

    :param module: the model
    :param found: its parameters
    :param weights: their values, whole also where the parameters are sharded
    :param live: which of their weights are still there, bool
    :param creator: what is pruned together
    :param global_sparsity: whether the weights of all parameters are ranked together
    """

    module: Module
    found: list[NamedLayerParam]
    weights: list[Tensor]
    live: list[Tensor]
    creator: PruningMaskCreator
    global_sparsity: bool

    def decide(
        self, scores: Sequence[Tensor], targets: list[float], indices: Sequence[int]
    ) -> list[Tensor]:
        """The masks (bool) of some of the parameters, by scores; what was gone stays gone.

        :param scores: one tensor each, minus infinity where weights are gone
        :param targets: one sparsity for each of all parameters
        :param indices: which parameters
        """
        own = [targets[index] for index in indices]
        masks = self.creator.create_parameter_masks(list(scores), own, self.global_sparsity)
        return [
            (mask != 0) & self.live[index].to(mask.device)
            for index, mask in zip(indices, masks, strict=True)
        ]


class SampledScorer(PruningParamsGradScorer):
    """Samples gradients, and finds masks and weights for one or more targets from them.

    :param params: the parameters
    :param owner: the modifier, for messages
    """

    def __init__(self, params: Sequence[Parameter], owner: str) -> None:
        super().__init__(params)
        self._owner = owner
        self._scores: list[Tensor | None] = [None] * len(params)
        self._weights: list[Tensor | None] = []
        self.sampler: GradientSampler | None = None

    @abstractmethod
    def cuts(self, subject: Subject, targets: list[list[float]]) -> list[Cut]:
        """The outcome for every target, from one estimate.

        Nothing is changed but the sampler's position.

        :param targets: for each outcome, one sparsity per parameter (equal ones with
            ``global_sparsity``)
        """

    def describe(self, subject: Subject) -> str:
        """What this will take, for the log; raises where that is too much."""
        return ""

    def stage(self, cut: Cut) -> None:
        """Take these weights at the next change of the masks."""
        self._weights = list(cut.weights)

    def score_parameters(self) -> list[Tensor]:
        """The scores of the last estimate.

        :raises RuntimeError: before the first
        """
        scores = [score for score in self._scores if score is not None]
        if len(scores) < len(self._params):
            raise RuntimeError(f"{self._owner} has no scores before it has sampled gradients")
        return scores

    @torch.no_grad()
    def mask_update(self, masks: list[Tensor], mask_diffs: list[Tensor]) -> None:
        """Give the parameters their new weights."""
        staged, self._weights = self._weights, []
        for param, weight in zip(self._params, staged, strict=False):
            if weight is not None:
                param.copy_(shard_like(weight.to(param.device, param.dtype), param))

    def on_pruning_end(self) -> None:
        """Let go of scores."""
        self._scores = [None] * len(self._params)

    def _sampler(self) -> GradientSampler:
        if self.sampler is None:
            raise RuntimeError(f"{self._owner} needs a grad_sampler")
        return self.sampler

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_weights": []}
