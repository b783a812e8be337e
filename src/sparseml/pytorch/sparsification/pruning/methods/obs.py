"""Scores and updates of OBS and CAP, from inverse block Fisher matrices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparseml.pytorch.functional.budgets import Global
from sparseml.pytorch.functional.patterns import NM, Pattern, PerTensor
from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.functional.second_order.elimination import eliminate_cheapest
from sparseml.pytorch.functional.second_order.obs import obs_scores, part_scores
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import (
    FisherPasses,
    FisherSettings,
    Held,
    Sums,
    put_aside,
)
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem, Target
from sparseml.pytorch.sparsification.pruning.methods.trials import best_of_decades
from sparseml.pytorch.sparsification.pruning.sampling.shards import Piece, add_numbers, highest
from sparseml.pytorch.sparsification.pruning.settings.memory import describe_bytes
from sparseml.pytorch.sparsification.pruning.settings.processor import tell_without_numba
from sparseml.pytorch.utils.distributed import is_distributed

_LOGGER = logging.getLogger(__name__)

_UNLIMITED = Global()

Scored = list[tuple[Piece, Tensor]]
"""Blocks held by this rank, with a value per weight ``[R, B]``."""


@dataclass(frozen=True)
class BlockRule:
    """How weights are cut into blocks, scored and compensated.

    :param block_size: of the Fisher matrix
    :param layout: ``padded``, ``divisor`` or ``row``
    :param eliminate: score by eliminating one after another (CAP), not each alone (OBS)
    :param update: ``joint`` or ``simultaneous``
    :param group: weights that blocks do not tear apart
    :param together: weights that are removed at once
    :param nm: ``(N, M)``, to keep N of M
    :param spread: whether a unit may have parts in several blocks
    """

    block_size: int
    layout: str = "padded"
    eliminate: bool = False
    update: str = "joint"
    group: int = 1
    together: int = 1
    nm: tuple[int, int] | None = None
    spread: bool = False

    def fitted(self, pattern: Pattern) -> BlockRule:
        """Return the rule for a pattern.

        Units that are runs of consecutive inputs are never torn apart by blocks; of others each
        block holds a part, or several.

        :raises ValueError: with ``eliminate``, for units that are no such runs: the order in which
            a block is eliminated would depend on all others
        """
        run = pattern.run
        if run < 1 and not self.eliminate and isinstance(pattern, PerTensor):
            return replace(self, spread=True)
        if run < 1:
            raise ValueError(
                f"units of {pattern} masks are no runs of consecutive inputs of one output, so "
                "they lie in no single block of the Fisher matrix"
            )
        if isinstance(pattern, NM):
            return replace(self, group=run, nm=(pattern.keep, pattern.group))
        return replace(self, group=run, together=run)


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
        self._sums: list[Sums] | None = None
        self._warn: Callable[[str], None] = _LOGGER.warning

    def _cut(self, problem: Problem) -> tuple[BlockRule, FisherPasses]:
        rule = self._rule.fitted(problem.pattern)
        layouts = [
            block_layout(weight.shape, rule.block_size, rule.layout, group=rule.group)
            for weight in problem.weights
        ]
        given = (problem, layouts, self._settings, self._owner, self._warn, self._sums)
        return rule, FisherPasses(*given)

    def describe(self, problem: Problem) -> str:
        rule, fishers = self._cut(problem)
        groups = [group for _, groups in fishers.sets() for group in groups]
        largest = describe_bytes(max(map(fishers.require_memory, groups)))
        size, count = max(one.block_size for one in fishers.layouts), self._settings.num_grads
        if rule.eliminate and (self._settings.device or problem.weights[0].device).type == "cpu":
            tell_without_numba()
        if count < size:
            text = "%s: %d gradients cannot tell apart the %d weights of a block: take as many "
            text += "(num_grads) at least, or a smaller fisher_block_size"
            _LOGGER.warning(text, self._owner, count, size)
        return (
            f"Fisher matrices in {sum(i.num_blocks for i in fishers.layouts)} blocks of at most "
            f"{max(i.block_size for i in fishers.layouts)} weights take {largest}"
            f" at a time, in {len(groups)} group(s)"
        )

    def decide(
        self, problem: Problem, targets: Sequence[Target], only: Sequence[int] | None = None
    ) -> list[Outcome]:
        problem = problem if only is None else problem.restricted(only)
        if self._settings.auto:
            return self._by_trials(problem, targets)
        rule, fishers = self._cut(problem)
        wanted = [problem.one_each(target) for target in targets]
        masks: list[dict[int, Tensor]] = [{} for _ in targets]
        weights: list[dict[int, Tensor]] = [{} for _ in targets]
        for indices, groups in fishers.sets():
            scores, aside = self._scores(rule, fishers, indices, groups, wanted)
            for keep, target in zip(masks, wanted, strict=True):
                chosen = select(
                    scores,
                    problem.pattern,
                    problem.budget,
                    [target[index] for index in indices],
                    live=[problem.live[index] for index in indices],
                    spread_ties=problem.spread_ties,
                    names=[problem.names[index] for index in indices],
                )
                keep.update(zip(indices, chosen, strict=True))
            found: list[Scored] = [[] for _ in targets]
            for group, kept in zip(groups, aside, strict=True):
                held = fishers.inverses(group) if kept is None else kept
                _update(rule, problem, held, masks, found)
                del held, kept  # before the next ones take their place
            del aside
            for new, blocks in zip(weights, found, strict=True):
                new.update(zip(indices, fishers.joined(indices, blocks), strict=True))
        order = range(len(problem.found))
        return [
            problem.outcome([keep[i] for i in order], [new[i] for i in order])
            for keep, new in zip(masks, weights, strict=True)
        ]

    def _by_trials(self, problem: Problem, targets: Sequence[Target]) -> list[Outcome]:
        sets = self._cut(problem)[1].sets()
        sums: list[Sums] | None = [] if len(sets) == 1 and len(sets[0][1]) == 1 else None

        def attempt(relative: float, warn: Callable[[str], None]) -> list[Outcome]:
            return self.fixed(relative, sums, warn).decide(problem, targets)

        count = self._settings.num_grads
        return best_of_decades(self._owner, problem, targets, count, attempt)

    def fixed(
        self, relative: float, sums: list[Sums] | None, warn: Callable[[str], None] | None = None
    ) -> OptimalBrainSurgeon:
        """Return the method with a fixed dampening, relative to the mean diagonal.

        :param sums: where sums of products of gradients are put, and taken from the next time
        :param warn: is told what is wrong with the dampening, by default the log
        """
        settings = replace(self._settings, damp=relative, relative=True, auto=False)
        method = OptimalBrainSurgeon(self._owner, self._rule, settings)
        method._sums, method._warn = sums, warn or _LOGGER.warning
        return method

    def _scores(
        self,
        rule: BlockRule,
        fishers: FisherPasses,
        indices: list[int],
        groups: list[list[Piece]],
        targets: Sequence[Sequence[float]],
    ) -> tuple[list[Tensor], list[Held | None]]:
        """Scores of some parameters, and the inverses that were kept for the update."""
        problem, folder, alone = fishers.problem, self._settings.folder, len(groups) == 1
        found: Scored = []
        aside: list[Held | None] = []
        for group in groups:
            held = fishers.inverses(group)
            if rule.eliminate:
                found += _eliminated(rule, fishers, indices, held, targets if alone else None)
            else:
                found += _costs(rule, fishers, held)
            aside.append(held if alone else put_aside(held, folder) if folder else None)
            del held  # before the next group's take their place
        scores = fishers.joined(indices, found)
        for index, score in zip(indices, scores, strict=True):
            if rule.spread:
                break
            live, layout = problem.live[index], fishers.layouts[index]
            if rule.together > 1:  # groups of which nothing is left
                left = layout.to_blocks(live).view(layout.num_blocks, -1, rule.together).any(-1)
                live = layout.from_blocks(left.repeat_interleave(rule.together, dim=1))
            score.masked_fill_(~live.to(score.device), -torch.inf)
        return scores, aside


def _costs(rule: BlockRule, fishers: FisherPasses, held: Held) -> Scored:
    """What removing each weight, or each group, alone costs."""
    scored: Scored = []
    for piece, inverse in held:
        weight = fishers.problem.weights[piece.index]
        weights = inverse.blocks_of(weight) * inverse.live
        if rule.spread:
            pattern = fishers.problem.pattern
            assert isinstance(pattern, PerTensor)
            # counted from 1; 0 where there is no weight
            units = inverse.layout.to_blocks(pattern.units_of(weight.shape))[piece.rows]
            scores = part_scores(weights, inverse.inverse, units.to(weights.device))
        else:
            scores = obs_scores(weights, inverse.inverse, rule.together)
        scored.append((piece, scores))
    return scored


def _eliminated(
    rule: BlockRule,
    fishers: FisherPasses,
    indices: list[int],
    held: Held,
    targets: Sequence[Sequence[float]] | None,
) -> Scored:
    """Cumulative losses of removing weights one by one; inf where they were not reached.

    :param targets: where the ranks hold all that is ranked together, so that it is known how far to
        look; else None
    """
    problem, scored = fishers.problem, []
    # every rank goes through all of them, whatever it holds: they exchange how far to look
    for ranked in [indices] if problem.budget.joint else [[index] for index in indices]:
        own = [(piece, inverse) for piece, inverse in held if piece.index in ranked]
        steps = None
        if targets is not None and rule.nm is None:
            # groups, and those of them that are still there
            groups = left = 0
            for layout, live in ((fishers.layouts[i], problem.live[i]) for i in ranked):
                groups += layout.rows * layout.row // rule.together
                left += int(layout.to_blocks(live).reshape(-1, rule.together).any(-1).sum())
            highest_target = max(target[ranked[0]] for target in targets)
            goal = prune_count(groups, highest_target)
            if isinstance(problem.budget, Global) and problem.budget != _UNLIMITED:
                # what limits keep back is dearer elsewhere
                sizes = [problem.weights[i].numel() for i in ranked]
                lowest = min(target[ranked[0]] for target in targets)
                goal += problem.budget.most_kept_back(sizes, lowest)
            steps = max(0, goal - (groups - left))
        found = eliminate_cheapest(
            [inverse for _, inverse in own],
            [problem.weights[piece.index] for piece, _ in own],
            steps,
            group=rule.together,
            nm=rule.nm,
            add_up=add_numbers if is_distributed() else int,
            highest=highest if is_distributed() else float,
        )
        scored += [(piece, one.scores()) for (piece, _), one in zip(own, found, strict=True)]
    return scored


def _update(
    rule: BlockRule,
    problem: Problem,
    held: Held,
    masks: list[dict[int, Tensor]],
    found: list[Scored],
) -> None:
    """Append the new blocks of some weights to those of each target."""
    for piece, inverse in held:
        # from wherever it was put aside
        inverse = replace(inverse, inverse=inverse.inverse.to(inverse.live.device))
        weight, part = problem.weights[piece.index], rule.together
        for blocks, keep in zip(found, masks, strict=True):
            new, _ = inverse.update(weight, ~keep[piece.index], rule=rule.update, group=part)
            blocks.append((piece, new))
