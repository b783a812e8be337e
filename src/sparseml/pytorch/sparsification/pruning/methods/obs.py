"""Scores and updates of OBS and CAP, from inverse block Fisher matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparseml.pytorch.functional.block_inverse import BlockInverse
from sparseml.pytorch.functional.kernels import exact_arithmetic
from sparseml.pytorch.functional.obs import obs_scores, part_scores
from sparseml.pytorch.functional.patterns import PerTensor
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.block_rule import BlockRule
from sparseml.pytorch.sparsification.pruning.methods.elimination_depth import eliminated
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import (
    FisherPasses,
    FisherSettings,
    Held,
    brought_back,
    fisher_bytes,
    plan_groups,
    put_aside,
)
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.sparsification.pruning.sampling.shards import Piece, join_pieces
from sparseml.pytorch.sparsification.pruning.settings.memory import describe_bytes

__all__ = ["OptimalBrainSurgeon"]


class OptimalBrainSurgeon(Method):
    """What removing weights costs goes by inverse Fisher matrices, and the others make up for it.

    Kurtic et al., "The Optimal BERT Surgeon" (2022); with ``rule.eliminate``, Kuznedelev et al.,
    "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models" (2023).

    When all fits at once, gradients are sampled once, and inverses kept for the update. Weights
    that are pruned by themselves are handled group by group, each sampled once. Where all weights
    are ranked together and do not fit, every group is estimated twice, for the ranking and for the
    update, unless there is a folder to put the inverses aside.

    :param owner: the modifier, for messages
    :param rule: what to do with each block
    :param settings: how the Fisher matrices are estimated
    """

    samples = True
    keeps_zeros = True

    def __init__(self, owner: str, rule: BlockRule, settings: FisherSettings) -> None:
        self._owner, self._rule, self._settings = owner, rule, settings

    def describe(self, problem: Problem) -> str:
        """Return how much memory the Fisher matrices take, in how many groups.

        :raises RuntimeError: if that is not there
        """
        work = _Work(problem, self._owner, self._rule, self._settings)
        groups = [group for _, groups in work.sets() for group in groups]
        for group in groups:
            work.passes.require_memory(group)
        sizes = [fisher_bytes(group, work.layouts, self._settings.dtype) for group in groups]
        return (
            f"Fisher matrices in {sum(i.num_blocks for i in work.layouts)} blocks of at most "
            f"{max(i.block_size for i in work.layouts)} weights take {describe_bytes(max(sizes))}"
            f" at a time, in {len(groups)} group(s)"
        )

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        """Return the outcome for each target, all from one estimate."""
        problem = problem.restricted(only)
        work = _Work(problem, self._owner, self._rule, self._settings)
        count = len(problem.found)
        found: list[tuple[list[Tensor], list[Tensor]]] = [
            ([torch.empty(0)] * count, [torch.empty(0)] * count) for _ in targets
        ]
        wanted = [problem.one_each(target) for target in targets]
        for indices, groups in work.sets():
            for (masks, weights), (own, new) in zip(
                found, work.decided(indices, groups, wanted), strict=True
            ):
                for index, mask, weight in zip(indices, own, new, strict=True):
                    masks[index], weights[index] = mask, weight
        return [problem.outcome(masks, weights) for masks, weights in found]


class _Work:
    """One decision: the problem with its blocks."""

    def __init__(
        self, problem: Problem, owner: str, rule: BlockRule, settings: FisherSettings
    ) -> None:
        self._problem, self._settings = problem, settings
        self._rule = rule.fitted(problem.pattern)
        self.layouts = [self._rule.cut(weight.shape) for weight in problem.weights]
        self.passes = FisherPasses(problem, self.layouts, settings, owner)

    def sets(self) -> list[tuple[list[int], list[list[Piece]]]]:
        """Sets of weights that are decided on by themselves, each in its groups."""
        everything = list(range(len(self._problem.found)))
        if self._problem.budget.joint:
            return [(everything, plan_groups(everything, self.layouts, self._settings))]
        sets: list[tuple[list[int], list[list[Piece]]]] = []
        for index in everything:
            alone = plan_groups([index], self.layouts, self._settings)
            if sets:
                together = [*sets[-1][0], index]
                groups = plan_groups(together, self.layouts, self._settings)
                if len(groups) == 1:
                    sets[-1] = (together, groups)
                    continue
            sets.append(([index], alone))
        return sets

    def decided(
        self,
        indices: list[int],
        groups: list[list[Piece]],
        targets: list[list[float]],
    ) -> list[tuple[list[Tensor], list[Tensor]]]:
        """Return the masks and new weights of some parameters, for each target."""
        problem, folder = self._problem, self._settings.folder
        found: list[tuple[Piece, Tensor]] = []
        kept: list[Held | None] = []
        for group in groups:
            held = self.passes.inverses(group)
            found += self._scored(indices, held, targets, len(groups) == 1)
            if len(groups) == 1:
                kept.append(held)
            else:
                kept.append(put_aside(held, folder) if folder else None)
            del held  # before the next group's take their place
        scores = self._joined(indices, found)
        for index, score in zip(indices, scores, strict=True):
            if not self._rule.spread:
                gone = ~problem.live[index].to(score.device)
                score.masked_fill_(gone & self._fully_gone(index, gone), -torch.inf)
        masks = [problem.select_of(indices, scores, target) for target in targets]
        updated: list[list[tuple[Piece, Tensor]]] = [[] for _ in targets]
        for group, aside in zip(groups, kept, strict=True):
            held = self.passes.inverses(group) if aside is None else brought_back(aside)
            for one, pruned in zip(updated, masks, strict=True):
                keep = dict(zip(indices, pruned, strict=True))
                one += [(p, self._updated(p, i, keep[p.index])) for p, i in held]
            del held
        weights = [self._joined(indices, one) for one in updated]
        return list(zip(masks, weights, strict=True))

    def _scored(
        self, indices: list[int], held: Held, targets: list[list[float]], complete: bool
    ) -> list[tuple[Piece, Tensor]]:
        problem, rule = self._problem, self._rule
        if rule.eliminate:
            return eliminated(problem, indices, held, self.layouts, rule, targets, complete)
        scored = []
        for piece, inverse in held:
            weights = inverse.blocks_of(problem.weights[piece.index]) * inverse.live
            with exact_arithmetic(inverse.inverse.device):
                if rule.spread:
                    scores = part_scores(weights, inverse.inverse, self._units(piece, inverse))
                else:
                    scores = obs_scores(weights, inverse.inverse, rule.together)
            scored.append((piece, scores))
        return scored

    def _units(self, piece: Piece, inverse: BlockInverse) -> Tensor:
        """The unit of each weight of some blocks, counted from 1; 0 where there is no weight."""
        pattern = self._problem.pattern
        assert isinstance(pattern, PerTensor)
        units = pattern.units_of(self._problem.weights[piece.index].shape)
        blocks = self.layouts[piece.index].to_blocks(units)[piece.rows]
        return blocks.to(inverse.inverse.device)

    def _updated(self, piece: Piece, inverse: BlockInverse, keep: Tensor) -> Tensor:
        weight = self._problem.weights[piece.index].to(inverse.inverse.dtype)
        rule, group = self._rule.update, self._rule.together
        with exact_arithmetic(inverse.inverse.device):
            new, _ = inverse.update(weight, ~keep, rule=rule, group=group)
        return self.layouts[piece.index].to_blocks(new)[piece.rows]

    def _joined(
        self, indices: Sequence[int], found: Sequence[tuple[Piece, Tensor]]
    ) -> list[Tensor]:
        return join_pieces(found, indices, self.layouts, self._problem.weights)

    def _fully_gone(self, index: int, gone: Tensor) -> Tensor:
        """Weights all of whose group are gone."""
        layout, group = self.layouts[index], self._rule.together
        if group == 1:
            return gone
        rows = ~layout.to_blocks(~gone)
        whole = rows.view(len(rows), -1, group).all(-1).repeat_interleave(group, dim=1)
        return layout.from_blocks(whole)
