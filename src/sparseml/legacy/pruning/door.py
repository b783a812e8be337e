"""The parts of a pruning modifier in the form that SparseML 1.x gave them, and such parts in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseml.legacy.pruning.analyzer import ModulePruningAnalyzer
from sparseml.legacy.pruning.mask_creator import PruningMaskCreator, creator_of
from sparseml.legacy.pruning.mask_params import ModuleParamPruningMask, checked_scores
from sparseml.legacy.pruning.scorer import (
    MagnitudePruningParamsScorer,
    MovementPruningParamsScorer,
    PruningParamsScorer,
)
from sparseml.pytorch.sparsification.pruning.masks.agreement import broadcast_masks
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.sparsification.pruning.methods.elementwise import Magnitude, Movement
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.utils.sharded import full_value
from sparseml.pytorch.utils.tensor_stats import mask_difference, tensor_list_sparsity

__all__ = ["Door", "MethodScorer", "ScorerMethod"]


class Door:
    """What 1.x calls mask creator, scorer, module masks and analyzers of a modifier.

    :param modifier: initialised
    """

    def __init__(self, modifier: Any) -> None:
        masks: MaskSet = modifier.masks
        self.creator = modifier._get_mask_creator(masks.full_names, masks.params)
        self.scorer = modifier._get_scorer(masks.params)
        joint = modifier.global_sparsity
        self.masks = ModuleParamPruningMask.of(masks, self.creator, self.scorer, joint)
        owners = zip(masks.layers, masks.layer_names, masks.param_names, strict=True)
        self.analyzers = [ModulePruningAnalyzer(*owner) for owner in owners]

    def method(self, global_sparsity: bool) -> ScorerMethod:
        """Return the method that decides as creator and scorer say."""
        return ScorerMethod(self.scorer, self.creator, global_sparsity)

    @staticmethod
    def creator_of(pattern: Any) -> PruningMaskCreator:
        """Return the mask creator that stands for a pattern."""
        return creator_of(pattern)

    @staticmethod
    def scorer_of(method: Method, params: Sequence[Any]) -> PruningParamsScorer:
        """Return the scorer that stands for a method."""
        if isinstance(method, Movement):
            return MovementPruningParamsScorer(params, sums=method)
        if isinstance(method, Magnitude):
            return MagnitudePruningParamsScorer(params)
        return MethodScorer(params, method)


class MethodScorer(PruningParamsScorer):
    """Stands for a method that has no scorer in 1.x; tells which method it is."""

    def __init__(self, params: Sequence[Any], method: Method) -> None:
        super().__init__(params)
        self.method = method

    def score_parameters(self) -> list[Tensor]:
        """:raises RuntimeError: as the method scores only within a decision"""
        raise RuntimeError(
            f"{type(self.method).__name__} scores weights only while it decides; call the "
            "modifier's outcome(model) for masks and weights"
        )


class ScorerMethod(Method):
    """Decides by a scorer and a mask creator in the form of SparseML 1.x.

    :param scorer: scores parameters, and may compensate them when told the new masks
    :param creator: makes masks of scores
    :param global_sparsity: whether it ranks the weights of all parameters together
    """

    _progress = ("scorer",)

    def __init__(self, scorer: Any, creator: Any, global_sparsity: bool) -> None:
        self.scorer, self._creator, self._joint = scorer, creator, global_sparsity

    def observe(self, masks: MaskSet) -> None:
        """Let the scorer see the gradients."""
        self.scorer.pre_optim_step_update(masks.param_masks)

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        """Return the outcome for each target.

        :raises ValueError: for ``only``, which a mask creator does not know
        """
        if only is not None:
            raise ValueError("mask creators of SparseML 1.x decide on all parameters together")
        return [self._decided(problem.masks, target) for target in targets]

    def end(self) -> None:
        """Tell the scorer."""
        self.scorer.on_pruning_end()

    def _decided(self, masks: MaskSet, target: Target) -> Outcome:
        self.scorer.check_regen_param_vals()
        scores = checked_scores(masks, self.scorer)
        new = broadcast_masks(self._creator.create_parameter_masks(scores, target, self._joint))
        self.scorer.update_last_applied_sparsity(tensor_list_sparsity(new))
        old = [full_value(mask) for mask in masks.param_masks]
        like = [mask.to(before.device, before.dtype) for mask, before in zip(new, old, strict=True)]
        diffs = [mask_difference(before, mask) for before, mask in zip(old, like, strict=True)]
        weights = self._compensated(masks, like, diffs)
        changes = zip(masks.full_names, like, weights, strict=True)
        return Outcome((name, Change(mask != 0, weight)) for name, mask, weight in changes)

    @torch.no_grad()
    def _compensated(
        self, masks: MaskSet, new: list[Tensor], diffs: list[Tensor]
    ) -> list[Tensor | None]:
        """The weights that the scorer makes of the present ones, which it changes in place."""
        if type(self.scorer).mask_update is PruningParamsScorer.mask_update:
            return [None] * len(new)
        params = masks.params
        before = [param.detach().clone() for param in params]
        self.scorer.mask_update(new, diffs)
        found: list[Tensor | None] = []
        for param, value in zip(params, before, strict=True):
            same = bool((param == value).all())
            found.append(None if same else full_value(param).clone())
            param.copy_(value)
        return found
