"""Gradual pruning by magnitude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import Parameter

from sparseml.pytorch.functional.budgets import global_counts, require_possible, sparsity_bounds
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.sparsification.fields import argument, declared_fields, field, fixed
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.by_magnitude import ByMagnitude
from sparseml.pytorch.sparsification.pruning.fields import as_optional_fraction
from sparseml.pytorch.sparsification.pruning.mask_creator import Budget, MaskType, Target
from sparseml.pytorch.sparsification.pruning.mask_creator_base import common_target
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)

__all__ = [
    "GMPruningModifier",
    "GlobalMagnitudePruningModifier",
    "LayerwiseGMPruningModifier",
    "MagnitudePruningModifier",
]


def _never_phased(name: str, value: Any) -> None:
    if value:
        raise ValueError(
            f"{name} must be False; for phases of dense and sparse training use ACDCPruningModifier"
        )


def _magnitude_only(name: str, value: Any) -> None:
    if value != "magnitude":
        raise ValueError(
            f"{name} must be 'magnitude', found {value!r}; other scores have modifiers of their "
            "own, as MovementPruningModifier"
        )


@PyTorchModifierYAML()
@declared_fields()
class GMPruningModifier(GradualFields, ByMagnitude, BaseGradualPruningModifier):
    """Gradual magnitude pruning: Zhu and Gupta, "To prune, or not to prune" (2017).

    | Sample yaml:
    |   !GMPruningModifier
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: ['re:.*weight']

    :param leave_enabled: keep the masks in force after the end, so that nothing grows back
    :param global_sparsity: rank the weights of all parameters together
    :param phased: must be False; kept for the message to old recipes
    :param score_type: must be ``magnitude``; kept for the message to old recipes
    :param max_sparsity_per_param: with global_sparsity, no parameter gets sparser than this
    :param min_sparsity_per_param: with global_sparsity, at the end no parameter is denser than
        ``1 - min_sparsity_per_param``; on the way there the limit grows with the sparsity
    :raises ValueError: for fields that contradict each other
    """

    mask_type: MaskType = "unstructured"
    global_sparsity: bool = False
    phased: bool = argument(_never_phased, default=False)
    score_type: str = argument(_magnitude_only, default="magnitude")
    max_sparsity_per_param: float | None = field(as_optional_fraction, default=None)
    min_sparsity_per_param: float | None = field(as_optional_fraction, default=None)
    end_comparator: int = fixed(-1)

    def _set_up(self) -> None:
        self._require_sensible_limits()

    def _get_budget(self, params: list[Parameter]) -> Budget | None:
        if not self._limits():
            return None
        self._require_sensible_limits()
        if self._mask_creator is not None and self._mask_creator.fixed_sparsity is not None:
            raise ValueError(
                f"{', '.join(self._limits())}: {self._mask_creator} masks make every parameter "
                "equally sparse"
            )
        sizes = [param.numel() for param in params]
        floors, caps = self._bounds(sizes)
        require_possible(prune_count(sum(sizes), self._final_targets[0]), sizes, floors, caps)
        return self._limited_counts

    def _limited_counts(self, units: Sequence[Tensor], target: Target) -> list[int]:
        sizes = [unit.numel() for unit in units]
        asked = target if isinstance(target, float) else common_target(list(target))
        floors, caps = self._bounds(sizes)
        final = self._final_targets[0]
        if asked < final:
            floors = [int(floor * asked / final) for floor in floors]
        return global_counts(units, prune_count(sum(sizes), asked), floors, caps)

    def _bounds(self, sizes: list[int]) -> tuple[list[int], list[int]]:
        limits = self._limits()
        return sparsity_bounds(
            sizes,
            max_sparsity=limits.get("max_sparsity_per_param", 1.0),
            min_sparsity=limits.get("min_sparsity_per_param", 0.0),
        )

    def _limits(self) -> dict[str, float]:
        names = ("max_sparsity_per_param", "min_sparsity_per_param")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def _require_sensible_limits(self) -> None:
        limits, final = self._limits(), self._final_sparsity
        if limits and not self._global_sparsity:
            raise ValueError(
                f"{', '.join(limits)} of {type(self).__name__} needs global_sparsity: True; "
                "without it every parameter gets the sparsity asked for"
            )
        if not limits or isinstance(final, Mapping):
            return
        if (
            not limits.get("min_sparsity_per_param", 0.0)
            <= final
            <= limits.get("max_sparsity_per_param", 1.0)
        ):
            raise ValueError(
                f"{self._describe('final_sparsity')} must lie between min_sparsity_per_param and "
                f"max_sparsity_per_param, found {final} with {limits}"
            )


@declared_fields()
class LayerwiseGMPruningModifier(GMPruningModifier):
    """Gradual pruning in which every parameter gets the sparsity asked for.

    The fields are those of :class:`GMPruningModifier` that make sense then.
    """

    global_sparsity: bool = fixed(False, hidden=True)
    phased: bool = fixed(False)
    score_type: str = fixed("magnitude")
    max_sparsity_per_param: float | None = fixed(None)
    min_sparsity_per_param: float | None = fixed(None)


@PyTorchModifierYAML()
class MagnitudePruningModifier(LayerwiseGMPruningModifier):
    """Gradual magnitude pruning of each parameter by itself.

    | Sample yaml:
    |   !MagnitudePruningModifier
    |       params: ['re:.*weight']
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    """


@PyTorchModifierYAML()
@declared_fields()
class GlobalMagnitudePruningModifier(GMPruningModifier):
    """Gradual magnitude pruning that ranks the weights of all parameters together.

    | Sample yaml:
    |   !GlobalMagnitudePruningModifier
    |       params: __ALL_PRUNABLE__
    |       max_sparsity_per_param: 0.98
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    """

    global_sparsity: bool = fixed(True, hidden=True)
    phased: bool = fixed(False)
    score_type: str = fixed("magnitude")
