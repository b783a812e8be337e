"""Pruning modifiers, and the parts they are made of.

A pruning modifier puts together a method (which weights go, and how the rest makes up for them), a
pattern (what goes together), a budget (how much, and from where) and a schedule (when).
``docs/adding_a_pruner.md`` shows how to write one.
"""

from __future__ import annotations

from sparseml.lazy import lazy_names
from sparseml.pytorch.functional.second_order.fisher import EmpiricalBlockFisherInverse
from sparseml.pytorch.functional.second_order.mfac import (
    FisherInverse,
    FisherInverseFast,
    FisherInverseFastBlock,
    FisherInverseFastPageSwap,
    FisherInverseFastSmallBlocks,
)
from sparseml.pytorch.sparsification.pruning.grown.modifier_pruning_gap import GaPPruningModifier
from sparseml.pytorch.sparsification.pruning.layers.powerpropagation_wrapper import (
    PowerpropagationWrapper,
)
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem
from sparseml.pytorch.sparsification.pruning.modifier_as import (
    REG_FUNCTIONS,
    REG_TENSORS,
    ASRegModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_powerpropagation import (
    PowerpropagationModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_acdc import ACDCPruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_constant import (
    ConstantPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradual import (
    BaseGradualPruningModifier,
    GradualFields,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_layer import LayerPruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_magnitude import (
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    MagnitudePruningModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_mfac import MFACPruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_movement import (
    MovementPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_obs import OBSPruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_rigl import RigLPruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_structured import (
    StructuredPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_topkast import (
    TopKASTPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.observed.modifier_pattern_lock import (
    PatternLockModifier,
)
from sparseml.pytorch.sparsification.pruning.observed.modifier_pruning_snip_momentum import (
    SnipMomentumPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.sampled.modifier_pruning_cap import CAPruningModifier
from sparseml.pytorch.sparsification.pruning.sampled.modifier_pruning_fast_cap import (
    FastCAPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.sampled.modifier_pruning_gradprod import (
    GWProdPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.settings.fields import PatternFields
from sparseml.pytorch.sparsification.pruning.shrinking.modifier_pruning_srp import (
    SRPPruningModifier,
)

_MOVED = {
    "sparseml.legacy.pruning.analyzer": "ModulePruningAnalyzer",
    "sparseml.legacy.pruning.mask_creator": "BlockMaskCreator ConstantMaskCreator "
    "FourBlockMaskCreator GroupedPruningMaskCreator NMPruningMaskCreator PatternMaskCreator "
    "PruningMaskCreator StructuredPruningMaskCreator UnstructuredPruningMaskCreator",
    "sparseml.legacy.pruning.mask_params": "ModuleParamPruningMask",
    "sparseml.legacy.pruning.scorer": "FastCAPruningParamsScorer GWProdPruningParamsScorer "
    "MFACPruningParamsScorer MagnitudePruningParamsScorer MovementPruningParamsScorer "
    "OBSPruningParamsScorer PruningParamsGradScorer PruningParamsScorer "
    "RigLPruningParamsScorer",
}
__getattr__, __dir__ = lazy_names(__name__, _MOVED)

__all__ = [
    "REG_FUNCTIONS",
    "REG_TENSORS",
    "ACDCPruningModifier",
    "ASRegModifier",
    "BaseGradualPruningModifier",
    "BasePruningModifier",
    "CAPruningModifier",
    "Change",
    "ConstantPruningModifier",
    "EmpiricalBlockFisherInverse",
    "FastCAPruningModifier",
    "FisherInverse",
    "FisherInverseFast",
    "FisherInverseFastBlock",
    "FisherInverseFastPageSwap",
    "FisherInverseFastSmallBlocks",
    "GMPruningModifier",
    "GWProdPruningModifier",
    "GaPPruningModifier",
    "GlobalMagnitudePruningModifier",
    "GradientSampler",
    "GradualFields",
    "LayerPruningModifier",
    "MFACPruningModifier",
    "MagnitudePruningModifier",
    "MaskSet",
    "Method",
    "MovementPruningModifier",
    "OBSPruningModifier",
    "Outcome",
    "PatternFields",
    "PatternLockModifier",
    "PowerpropagationModifier",
    "PowerpropagationWrapper",
    "Problem",
    "RigLPruningModifier",
    "SRPPruningModifier",
    "SnipMomentumPruningModifier",
    "StructuredPruningModifier",
    "TopKASTPruningModifier",
]
__all__ += " ".join(_MOVED.values()).split()
