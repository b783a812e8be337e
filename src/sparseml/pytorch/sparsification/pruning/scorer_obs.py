"""Scores and updates of OBS and CAP, from inverse block Fisher matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

from sparseml.pytorch.functional.block_inverse import BlockInverse
from sparseml.pytorch.functional.block_layout import BlockLayout, block_layout
from sparseml.pytorch.functional.kernels import exact_arithmetic
from sparseml.pytorch.functional.obs import obs_scores
from sparseml.pytorch.sparsification.pruning.elimination_depth import eliminated
from sparseml.pytorch.sparsification.pruning.fisher_passes import (
    FisherPasses,
    FisherSettings,
    Held,
    brought_back,
    fisher_bytes,
    plan_groups,
    put_aside,
)
from sparseml.pytorch.sparsification.pruning.memory import describe_bytes
from sparseml.pytorch.sparsification.pruning.scorer_sampled import Cut, SampledScorer, Subject
from sparseml.pytorch.sparsification.pruning.shards import Piece, join_pieces

__all__ = ["BlockRule", "OBSPruningParamsScorer"]


@dataclass(frozen=True)
class BlockRule:
    """How weights are cut into blocks, scored and compensated.

    :param block_size: of the Fisher matrix
    :param layout: ``padded``, ``divisor`` or ``row``
    :param group: weights that are removed together, or of which N:M is kept
    :param nm: ``(N, M)``, to keep N of M
    :param eliminate: score by eliminating one after another (CAP), not each alone (OBS)
    :param update: ``joint`` or ``simultaneous``
    """

    block_size: int
    layout: str = "padded"
    group: int = 1
    nm: tuple[int, int] | None = None
    eliminate: bool = False
    update: str = "joint"

    @property
    def together(self) -> int:
        """How many weights go at once."""
        return 1 if self.nm else self.group

    def cut(self, param: Tensor) -> BlockLayout:
        """The blocks of a parameter."""
        return block_layout(param.shape, self.block_size, self.layout, group=self.group)


class OBSPruningParamsScorer(SampledScorer):
    """What removing weights costs, and how the others make up for them.

    Kurtic et al., "The Optimal BERT Surgeon" (2022); with ``rule.eliminate``, Kuznedelev et al.,
    "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models" (2023).

    When all fits at once, gradients are sampled once, and inverses kept for the update. Weights
    that are pruned by themselves are handled group by group, each sampled once. Where all weights
    are ranked together and do not fit, every group is estimated twice, for the ranking and for the
    update, unless there is a folder to put the inverses aside.

    :param params: the parameters
    :param owner: the modifier, for messages
    :param rule: what to do with each block
    :param settings: how the Fisher matrices are estimated
    """

    def __init__(
        self, params: Sequence[Parameter], owner: str, rule: BlockRule, settings: FisherSettings
    ) -> None:
        super().__init__(params, owner)
        self._rule, self._settings = rule, settings
        self._layouts = [rule.cut(param) for param in params]

    def describe(self, subject: Subject) -> str:
        """How much memory the Fisher matrices take, in how many groups.

        :raises RuntimeError: if that is not there
        """
        self._layouts = [self._rule.cut(weight) for weight in subject.weights]
        groups = [group for _, groups in self._sets(subject) for group in groups]
        passes = self._passes(subject)
        for group in groups:
            passes.require_memory(group)
        sizes = [fisher_bytes(group, self._layouts, self._settings.dtype) for group in groups]
        return (
            f"Fisher matrices in {sum(i.num_blocks for i in self._layouts)} blocks of at most "
            f"{max(i.block_size for i in self._layouts)} weights take {describe_bytes(max(sizes))}"
            f" at a time, in {len(groups)} group(s)"
        )

    def cuts(self, subject: Subject, targets: list[list[float]]) -> list[Cut]:
        """See the base class."""
        count = len(subject.found)
        results = [Cut([torch.empty(0)] * count, [None] * count) for _ in targets]
        self._layouts = [self._rule.cut(weight) for weight in subject.weights]
        for indices, groups in self._sets(subject):
            for result, (masks, weights) in zip(
                results, self._cut_set(subject, indices, groups, targets), strict=True
            ):
                for index, mask, weight in zip(indices, masks, weights, strict=True):
                    result.masks[index], result.weights[index] = mask, weight
        return results

    def _passes(self, subject: Subject) -> FisherPasses:
        return FisherPasses(
            subject.module,
            self._sampler(),
            subject.found,
            subject.live,
            self._layouts,
            self._settings,
            self._owner,
        )

    def _sets(self, subject: Subject) -> list[tuple[list[int], list[list[Piece]]]]:
        """Sets of weights that are decided on by themselves, each in its groups."""
        everything = list(range(len(subject.found)))
        if subject.global_sparsity:
            return [(everything, plan_groups(everything, self._layouts, self._settings))]
        sets: list[tuple[list[int], list[list[Piece]]]] = []
        for index in everything:
            alone = plan_groups([index], self._layouts, self._settings)
            if sets:
                together = [*sets[-1][0], index]
                groups = plan_groups(together, self._layouts, self._settings)
                if len(groups) == 1:
                    sets[-1] = (together, groups)
                    continue
            sets.append(([index], alone))
        return sets

    def _cut_set(
        self,
        subject: Subject,
        indices: list[int],
        groups: list[list[Piece]],
        targets: list[list[float]],
    ) -> list[tuple[list[Tensor], list[Tensor]]]:
        passes = self._passes(subject)
        found: list[tuple[Piece, Tensor]] = []
        kept: list[Held | None] = []
        for group in groups:
            held = passes.inverses(group)
            found += self._pieces_scored(subject, indices, held, targets, len(groups) == 1)
            if len(groups) == 1:
                kept.append(held)
            else:
                folder = self._settings.folder
                kept.append(put_aside(held, folder) if folder else None)
            del held  # before the next group's take their place
        scores = self._joined(subject, indices, found)
        for index, score in zip(indices, scores, strict=True):
            gone = ~subject.live[index].to(score.device)
            self._scores[index] = score.masked_fill_(
                gone & self._fully_gone(index, gone), -torch.inf
            )
        masks = [subject.decide(scores, target, indices) for target in targets]
        updated: list[list[tuple[Piece, Tensor]]] = [[] for _ in targets]
        for group, aside in zip(groups, kept, strict=True):
            held = passes.inverses(group) if aside is None else brought_back(aside)
            for one, pruned in zip(updated, masks, strict=True):
                keep = dict(zip(indices, pruned, strict=True))
                one += [(p, self._updated(subject, p, i, keep[p.index])) for p, i in held]
            del held
        weights = [self._joined(subject, indices, one) for one in updated]
        return list(zip(masks, weights, strict=True))

    def _pieces_scored(
        self,
        subject: Subject,
        indices: list[int],
        held: Held,
        targets: list[list[float]],
        complete: bool,
    ) -> list[tuple[Piece, Tensor]]:
        if self._rule.eliminate:
            rule, layouts = self._rule, self._layouts
            return eliminated(subject, indices, held, layouts, rule, targets, complete)
        scored = []
        for piece, inverse in held:
            weights = inverse.blocks_of(subject.weights[piece.index]) * inverse.live
            with exact_arithmetic(inverse.inverse.device):
                scored.append((piece, obs_scores(weights, inverse.inverse, self._rule.group)))
        return scored

    def _updated(
        self, subject: Subject, piece: Piece, inverse: BlockInverse, keep: Tensor
    ) -> Tensor:
        weight = subject.weights[piece.index].to(inverse.inverse.dtype)
        rule, group = self._rule.update, self._rule.together
        with exact_arithmetic(inverse.inverse.device):
            new, _ = inverse.update(weight, ~keep, rule=rule, group=group)
        return self._layouts[piece.index].to_blocks(new)[piece.rows]

    def _joined(
        self, subject: Subject, indices: Sequence[int], found: Sequence[tuple[Piece, Tensor]]
    ) -> list[Tensor]:
        return join_pieces(found, indices, self._layouts, subject.weights)

    def _fully_gone(self, index: int, gone: Tensor) -> Tensor:
        """Weights all of whose group are gone."""
        layout, group = self._layouts[index], self._rule.together
        if group == 1:
            return gone
        rows = ~layout.to_blocks(~gone)
        whole = rows.view(len(rows), -1, group).all(-1).repeat_interleave(group, dim=1)
        return layout.from_blocks(whole)
