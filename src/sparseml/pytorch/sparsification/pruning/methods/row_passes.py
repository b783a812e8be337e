"""Pruning the rows of weights that share a matrix, in any pattern and under any budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns import NM, Pattern
from sparseml.pytorch.functional.second_order.fast_cap import ReducedFisher
from sparseml.pytorch.functional.second_order.input_moments import InputMoments
from sparseml.pytorch.functional.second_order.shared_rows import SharedRows, shared_rows
from sparseml.pytorch.functional.selection import require_numbers
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Problem
from sparseml.pytorch.utils.distributed import add_up, is_distributed, process_rank, world_size

_NOTHING = 1e-30
"""What weights may cost at most of which no gradient or input tells anything."""

Shared = ReducedFisher | InputMoments


@dataclass(frozen=True)
class RowRule:
    """How the rows of weights that share a matrix are pruned.

    :param fisher: the matrix: of ``gradients``, of ``inputs``, or ``both``, that of the inputs
        with a factor for each row, by its gradients
    :param order: of the columns, see :data:`~sparseml.pytorch.functional.second_order.shared_rows`
    :param ranking: what a weight costs: ``columns``, when its column is swept, or ``elimination``,
        when each row loses its weights one by one
    :param update: ``sweep``, to the columns still to come, or ``joint``, the best of whole rows
    """

    fisher: str = "gradients"
    order: str = "natural"
    ranking: str = "columns"
    update: str = "sweep"

    def run(self, pattern: Pattern) -> int:
        """Return how many inputs are pruned together.

        :raises ValueError: for units that are no runs of inputs
        """
        if pattern.run < 1:
            raise ValueError(
                f"units of {pattern} masks are no runs of consecutive inputs of one output, so "
                "that they lie in no single row"
            )
        return pattern.run

    def plain(self, problem: Problem) -> bool:
        """Return whether this is FastCAP as published, each tensor by itself."""
        single = problem.pattern.run == 1 and not isinstance(problem.pattern, NM)
        return self == RowRule() and single and not problem.budget.joint


@dataclass(frozen=True)
class RowPasses:
    """One decision by what rows share.

    :param fishers: of the problem's parameters, accumulated
    :param factors: of each row of each parameter, ``[out]``; None where all are 1
    :param owner: the modifier, for messages
    :param warn: is told where more dampening was needed, and where nothing is known of a parameter
    """

    problem: Problem
    fishers: Sequence[Shared]
    rule: RowRule
    damp: float
    owner: str
    warn: Callable[[str], None]
    factors: Sequence[Tensor] | None = None

    def outcome(self, targets: Sequence[float]) -> Outcome:
        """Return masks and weights for a target of each parameter. Each rank does its share."""
        problem, pattern = self.problem, self.problem.pattern
        nm = (pattern.keep, pattern.group) if isinstance(pattern, NM) else None
        rows = [self._rows(index, target) for index, target in enumerate(targets)]
        scores = [self._scores(index, one, nm) for index, one in enumerate(rows)]
        masks = problem.select(scores, list(targets), keep_zeros=True)
        found = []
        for index, (one, keep) in enumerate(zip(rows, masks, strict=True)):
            weight = problem.weights[index]
            new = torch.zeros_like(weight)
            if self._own(index):
                new = weight * keep
            if one is not None:
                swept, kept = one.swept(keep, nm if self.rule.ranking == "columns" else None)
                keep = kept.to(weight.device)
                new = (one.solved(kept) if self.rule.update == "joint" else swept).to(weight)
            elif is_distributed() and not self._own(index):
                keep = torch.zeros_like(keep)
            found.append(self._everywhere(keep, new))
        self._tell(rows)
        return problem.outcome([keep for keep, _ in found], [new for _, new in found])

    def _own(self, index: int) -> bool:
        return index % world_size() == process_rank()

    def _rows(self, index: int, target: float) -> SharedRows | None:
        """The rows of one parameter; None for one of another rank, or that nothing is known of."""
        if not self._own(index):
            return None
        problem, fisher = self.problem, self.fishers[index]
        if not bool(fisher.products.any()):
            what = "gradients" if self.rule.fisher == "gradients" else "inputs"
            self.warn(
                f"{self.owner}: all {what} of {problem.names[index]} are zero, so that its "
                "smallest weights go"
            )
            return None
        try:
            return shared_rows(
                problem.weights[index],
                fisher,
                damp=self.damp,
                mask=problem.live[index],
                order=self.rule.order,
                sparsity=target,
            )
        except ValueError as error:
            raise ValueError(f"{self.owner}: {problem.names[index]}: {error}") from error

    def _scores(self, index: int, rows: SharedRows | None, nm: tuple[int, int] | None) -> Tensor:
        """What each weight costs; where ranked together, in a measure that all share."""
        weight = self.problem.weights[index]
        scores = torch.zeros_like(weight, dtype=self.fishers[index].products.dtype)
        if rows is not None:
            by_columns = self.rule.ranking == "columns"
            found = rows.costs() if by_columns else rows.eliminated(nm)
            if self.factors is not None:
                # also in a row without gradient infinite costs stay so
                factor = self.factors[index].to(found).clamp_min(_NOTHING)
                found = found * factor.view(-1, *[1] * (found.ndim - 1))
            elif self.problem.budget.joint:
                found = found / rows.rows.shape[1]  # the matrix is the sum over rows
            require_numbers(found, f"scores of {self.problem.names[index]}")
            scores = found.to(scores)
        elif self._own(index):
            scores = weight.abs().to(scores) * (_NOTHING if self.problem.budget.joint else 1.0)
        return add_up(scores) if is_distributed() else scores

    def _everywhere(self, keep: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        if not is_distributed():
            return keep, new
        return add_up(keep.to(torch.uint8)) != 0, add_up(new)

    def _tell(self, rows: Sequence[SharedRows | None]) -> None:
        damp = max((one.damp for one in rows if one is not None), default=0.0)
        if damp > self.damp * (1 + 1e-6):
            self.warn(
                f"{self.owner}: a Fisher matrix was not positive definite with damp "
                f"{self.damp:g}; it took {damp:g}"
            )
