"""Gradual pruning by magnitude."""

from __future__ import annotations

from typing import Any

from sparseml.lazy import lazy_names
from sparseml.pytorch.sparsification.fields import (
    argument,
    as_given,
    declared_fields,
    field,
    fixed,
    new_field,
    stated,
)
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.settings.fields import MaskType, as_optional_fraction

# what was defined here in SparseML 1.x
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sparseml.legacy.pruning.scorer": "MagnitudePruningParamsScorer",
    },
)


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
@declared_fields(GradualFields)
class GMPruningModifier(BaseGradualPruningModifier):
    """Gradual magnitude pruning: Zhu and Gupta, "To prune, or not to prune" (2017).

    | Sample yaml:
    |   !GMPruningModifier
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0
    |       params: ['re:.*weight']

    :param mask_type: what is pruned together: ``unstructured``, ``block4``, ``N:M``, ``filter``,
        ``channel``, ``RxC``, ``1xchannel``, ``channelx1``, or ``[out, in]``
    :param phased: must be False; kept for the message to old recipes
    :param score_type: must be ``magnitude``; kept for the message to old recipes
    :raises ValueError: for fields that contradict each other
    """

    mask_type: MaskType = field(as_given, default="unstructured")
    global_sparsity: bool = False
    phased: bool = argument(_never_phased, default=False)
    score_type: str = argument(_magnitude_only, default="magnitude")
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    end_comparator: int = fixed(-1)
    _order_dependence = ""


@PyTorchModifierYAML()
@declared_fields(GradualFields)
class MagnitudePruningModifier(BaseGradualPruningModifier):
    """Gradual magnitude pruning of each parameter by itself.

    | Sample yaml:
    |   !MagnitudePruningModifier
    |       params: ['re:.*weight']
    |       init_sparsity: 0.05
    |       final_sparsity: 0.8
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0

    :param mask_type: as of :class:`GMPruningModifier`
    :param global_sparsity: always False
    """

    mask_type: MaskType = field(as_given, default="unstructured")
    end_comparator: int = fixed(-1)
    global_sparsity: bool = stated(
        default=False, why="GlobalMagnitudePruningModifier ranks all parameters together"
    )
    _order_dependence = ""


@PyTorchModifierYAML()
@declared_fields(GradualFields)
class GlobalMagnitudePruningModifier(BaseGradualPruningModifier):
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

    :param mask_type: as of :class:`GMPruningModifier`
    :param global_sparsity: always True
    :param max_sparsity_per_param: no parameter gets sparser than this
    :param min_sparsity_per_param: at the end no parameter is denser than
        ``1 - min_sparsity_per_param``; on the way there the limit grows with the sparsity
    :param layer_floor: every parameter keeps this share of what it would keep if all were equally
        sparse, so that none is emptied; the weights that are pruned in all stay as many
    """

    mask_type: MaskType = field(as_given, default="unstructured")
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    end_comparator: int = fixed(-1)
    global_sparsity: bool = stated(
        default=True, why="MagnitudePruningModifier prunes each parameter by itself"
    )
    layer_floor: float | None = new_field(as_optional_fraction, default=None)
    _order_dependence = ""


# SparseML 1.x derives these from GMPruningModifier; isinstance goes on saying so
GMPruningModifier.register(MagnitudePruningModifier)
GMPruningModifier.register(GlobalMagnitudePruningModifier)
