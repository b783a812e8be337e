"""The parts of a pruning modifier in the form that SparseML 1.x gave to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparseml.legacy.pruning.analyzer import ModulePruningAnalyzer
from sparseml.legacy.pruning.mask_params import ModuleParamPruningMask, checked_scores
from sparseml.legacy.pruning.scorer import PruningParamsScorer
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet, broadcast_masks
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.utils.tensors.sharded import full_value
from sparseml.pytorch.utils.tensors.stats import mask_difference, tensor_list_sparsity

__all__ = ["Door", "ScorerMethod"]


class Door:
    """What 1.x calls mask creator, scorer, masks and analyzers of an initialised modifier."""

    def __init__(self, modifier: Any) -> None:
        masks: MaskSet = modifier.masks
        self.creator = modifier._get_mask_creator(masks.full_names, masks.params)
        self.scorer = modifier._get_scorer(masks.params)
        joint = modifier.global_sparsity
        self.masks = ModuleParamPruningMask.of(masks, self.creator, self.scorer, joint)
        owners = zip(masks.layers, masks.layer_names, masks.param_names, strict=True)
        self.analyzers = [ModulePruningAnalyzer(*owner) for owner in owners]

    def method(self, with_creator: bool, global_sparsity: bool) -> ScorerMethod:
        """Return the method that decides as the scorer and, if asked for, the creator say."""
        return ScorerMethod(self.scorer, self.creator if with_creator else None, global_sparsity)


class ScorerMethod(Method):
    """Decides by a scorer and a mask creator in the form of SparseML 1.x.

    :param scorer: scores parameters, and may compensate them when told the new masks
    :param creator: makes masks of scores; None leaves that to pattern and budget
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
        """Return the outcome for each target; a ValueError refuses ``only``."""
        if only is not None:
            raise ValueError("mask creators of SparseML 1.x decide on all parameters together")
        return [self._decided(problem, target) for target in targets]

    def end(self) -> None:
        self.scorer.on_pruning_end()

    def _decided(self, problem: Problem, target: Target) -> Outcome:
        masks = problem.masks
        self.scorer.check_regen_param_vals()
        scores = checked_scores(masks, self.scorer)
        if self._creator is None:
            found = problem.outcome(problem.select(problem.turned(scores), target))
            pairs = zip(found.values(), scores, strict=True)
            new = [change.mask.to(score.dtype) for change, score in pairs]
        else:
            new = self._creator.create_parameter_masks(scores, target, self._joint)
        new = broadcast_masks(new)
        self.scorer.update_last_applied_sparsity(tensor_list_sparsity(new))
        old = [full_value(mask) for mask in masks.param_masks]
        like = [mask.to(before) for mask, before in zip(new, old, strict=True)]
        diffs = list(map(mask_difference, old, like))
        weights = self._compensated(masks, like, diffs)
        changes = zip(masks.full_names, like, weights, strict=True)
        return Outcome((name, Change(mask != 0, weight)) for name, mask, weight in changes)

    @torch.no_grad()
    def _compensated(
        self, masks: MaskSet, new: list[Tensor], diffs: list[Tensor]
    ) -> list[Tensor | None]:
        """Return what the scorer makes of the weights, which it changes in place."""
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
