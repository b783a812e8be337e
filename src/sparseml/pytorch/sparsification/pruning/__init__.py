"""Pruning modifiers, and the parts they are made of.

A pruning modifier puts together a mask creator (what is pruned together), a scorer (which weights
matter least) and a schedule (how many, when). ``docs/adding_a_pruner.md`` shows how to write one.
"""

from __future__ import annotations

from sparseml.pytorch.functional.empirical_inverse import EmpiricalBlockFisherInverse
from sparseml.pytorch.functional.mfac import (
    FisherInverse,
    FisherInverseFast,
    FisherInverseFastBlock,
    FisherInverseFastPageSwap,
    FisherInverseFastSmallBlocks,
)
from sparseml.pytorch.sparsification.pruning.analyzer import ModulePruningAnalyzer
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.mask_creator import (
    BlockMaskCreator,
    ConstantMaskCreator,
    FourBlockMaskCreator,
    GroupedPruningMaskCreator,
    NMPruningMaskCreator,
    PatternMaskCreator,
    PruningMaskCreator,
    StructuredPruningMaskCreator,
    UnstructuredPruningMaskCreator,
)
from sparseml.pytorch.sparsification.pruning.mask_params import ModuleParamPruningMask
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
from sparseml.pytorch.sparsification.pruning.modifier_pruning_cap import CAPruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_constant import (
    ConstantPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_fast_cap import FastCAPruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_gradprod import (
    GWProdPruningModifier,
    GWProdPruningParamsScorer,
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
from sparseml.pytorch.sparsification.pruning.modifier_pruning_rigl import (
    RigLPruningModifier,
    RigLPruningParamsScorer,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_sampled import SampledPruningModifier
from sparseml.pytorch.sparsification.pruning.modifier_pruning_structured import (
    StructuredPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.modifier_pruning_topkast import (
    TopKASTPruningModifier,
)
from sparseml.pytorch.sparsification.pruning.powerpropagation_wrapper import (
    PowerpropagationWrapper,
)
from sparseml.pytorch.sparsification.pruning.scorer import (
    MagnitudePruningParamsScorer,
    MovementPruningParamsScorer,
    PruningParamsGradScorer,
    PruningParamsScorer,
)
from sparseml.pytorch.sparsification.pruning.scorer_fast_cap import FastCAPruningParamsScorer
from sparseml.pytorch.sparsification.pruning.scorer_mfac import MFACPruningParamsScorer
from sparseml.pytorch.sparsification.pruning.scorer_obs import OBSPruningParamsScorer

__all__ = [
    "REG_FUNCTIONS",
    "REG_TENSORS",
    "ACDCPruningModifier",
    "ASRegModifier",
    "BaseGradualPruningModifier",
    "BasePruningModifier",
    "BlockMaskCreator",
    "CAPruningModifier",
    "ConstantMaskCreator",
    "ConstantPruningModifier",
    "EmpiricalBlockFisherInverse",
    "FastCAPruningModifier",
    "FastCAPruningParamsScorer",
    "FisherInverse",
    "FisherInverseFast",
    "FisherInverseFastBlock",
    "FisherInverseFastPageSwap",
    "FisherInverseFastSmallBlocks",
    "FourBlockMaskCreator",
    "GMPruningModifier",
    "GWProdPruningModifier",
    "GWProdPruningParamsScorer",
    "GlobalMagnitudePruningModifier",
    "GradientSampler",
    "GradualFields",
    "GroupedPruningMaskCreator",
    "LayerPruningModifier",
    "MFACPruningModifier",
    "MFACPruningParamsScorer",
    "MagnitudePruningModifier",
    "MagnitudePruningParamsScorer",
    "ModuleParamPruningMask",
    "ModulePruningAnalyzer",
    "MovementPruningModifier",
    "MovementPruningParamsScorer",
    "NMPruningMaskCreator",
    "OBSPruningModifier",
    "OBSPruningParamsScorer",
    "PatternMaskCreator",
    "PowerpropagationModifier",
    "PowerpropagationWrapper",
    "PruningMaskCreator",
    "PruningParamsGradScorer",
    "PruningParamsScorer",
    "RigLPruningModifier",
    "RigLPruningParamsScorer",
    "SampledPruningModifier",
    "StructuredPruningMaskCreator",
    "StructuredPruningModifier",
    "TopKASTPruningModifier",
    "UnstructuredPruningMaskCreator",
]
