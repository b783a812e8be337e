"""Scorers by the names that SparseML had before its modifiers' own; each has a name of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.nn import Parameter

from sparseml.legacy.pruning import scorer
from sparseml.pytorch.utils.distributed import sum_over_ranks
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = [
    "AVALIABLE_SCORER_CLASSES",
    "MagnitudePruningParamsScorer",
    "MovementPruningParamsScorer",
    "PruningParamsScorer",
    "create_pruning_param_scorer",
]


class PruningParamsScorer(scorer.PruningParamsScorer):
    """Scores parameters; those with the lowest scores are pruned."""

    @staticmethod
    @abstractmethod
    def get_name() -> str:
        """Return the word that ``score_type`` names the scorer by."""


class MagnitudePruningParamsScorer(scorer.MagnitudePruningParamsScorer, PruningParamsScorer):
    """Absolute values."""

    @staticmethod
    def get_name() -> str:
        return "magnitude"


class MovementPruningParamsScorer(scorer.MovementPruningParamsScorer, PruningParamsScorer):
    """How far training has moved each weight away from zero; pruned weights may come back."""

    @staticmethod
    def get_name() -> str:
        return "movement"

    def score_parameters(self) -> list[Tensor]:
        """Return the sums over all steps and ranks, at least float32, of pruned weights too."""
        return sum_over_ranks(self._movement_scores)


AVALIABLE_SCORER_CLASSES: list[type[PruningParamsScorer]] = [
    MagnitudePruningParamsScorer,
    MovementPruningParamsScorer,
]
"""The scorers that :func:`create_pruning_param_scorer` knows; a class of one's own may be added."""


def create_pruning_param_scorer(
    params: Sequence[Parameter], score_type: str
) -> PruningParamsScorer:
    """Return the scorer that a ``score_type`` names; a ValueError for another name."""
    classes = {clazz.get_name(): clazz for clazz in AVALIABLE_SCORER_CLASSES}
    if score_type not in classes:
        hint = did_you_mean(str(score_type), classes)
        raise ValueError(f"score_type must be {quoted_list(classes)}, found {score_type!r}{hint}")
    return classes[score_type](params)
