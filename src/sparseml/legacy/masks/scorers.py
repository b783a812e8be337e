"""Scorers and masks by the names that SparseML had before its modifiers' own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import Module, Parameter

from sparseml.legacy.masks.creators import UnstructuredPruningMaskCreator
from sparseml.legacy.pruning import mask_params, scorer
from sparseml.legacy.pruning.mask_creator import PruningMaskCreator, Target
from sparseml.pytorch.utils.distributed import sum_over_ranks
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = [
    "AVALIABLE_SCORER_CLASSES",
    "MagnitudePruningParamsScorer",
    "ModuleParamPruningMask",
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


class ModuleParamPruningMask(mask_params.ModuleParamPruningMask):
    """Masks of parameters, which can also be made from a threshold or from what is zero already.

    With movement scores masked weights go on training, and may come back.

    :param mask_creator: one of :mod:`sparseml.legacy.masks.creators`; None prunes single entries
    :param score_type: ``magnitude`` or ``movement``
    """

    _mask_creator: Any

    def __init__(
        self,
        layers: Sequence[Module],
        param_names: str | Sequence[str] = "weight",
        store_init: bool = False,
        store_unmasked: bool = False,
        track_grad_mom: float = -1.0,
        mask_creator: PruningMaskCreator | None = None,
        layer_names: Sequence[str] | None = None,
        global_sparsity: bool = False,
        score_type: str = "magnitude",
    ) -> None:
        params = [one.param for one in mask_params.named_params(layers, param_names, layer_names)]
        super().__init__(
            layers,
            mask_creator or UnstructuredPruningMaskCreator(),
            create_pruning_param_scorer(params, score_type),
            param_names,
            store_init=store_init,
            store_unmasked=store_unmasked,
            track_grad_mom=track_grad_mom,
            layer_names=layer_names,
            global_sparsity=global_sparsity,
            allow_reintroduction=score_type == "movement",
        )
        self.score_type = score_type

    def set_param_masks_from_weights(self) -> list[Tensor]:
        """Mask what is zero now; returns what :meth:`set_param_masks` does."""
        masks = self._mask_creator.create_sparsity_masks_from_tensor(self.params_data)
        return self.set_param_masks(masks)

    def set_param_masks_from_abs_threshold(self, threshold: float | Tensor) -> list[Tensor]:
        """Mask what is not above a threshold in size; returns what :meth:`set_param_masks` does."""
        sizes = [data.abs() for data in self.params_data]
        masks = self._mask_creator.create_sparsity_masks_from_threshold(sizes, threshold)
        return self.set_param_masks(masks)

    def set_param_masks_from_sparsity(self, sparsity: Target) -> list[Tensor]:
        """Mask the weights with the lowest scores; returns what :meth:`set_param_masks` does."""
        return self.update_param_masks(sparsity)
