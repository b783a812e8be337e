"""Modifiers: what to do to a model while it trains, and when."""

from __future__ import annotations

from sparseml.lazy import lazy_names
from sparseml.pytorch.sparsification.composing.modifier_assemble import AssembleModifier
from sparseml.pytorch.sparsification.composing.modifier_block_tuning import BlockTuningModifier
from sparseml.pytorch.sparsification.distillation import (
    DISTILL_PARAM_GROUP_KEY,
    BaseDistillationModifier,
    DistillationModifier,
    HiddenStateDistillationModifier,
    PerLayerDistillationModifier,
)
from sparseml.pytorch.sparsification.info import sparsification_info
from sparseml.pytorch.sparsification.modifier import (
    PYTORCH_FRAMEWORK,
    Modifier,
    ModifierProp,
    PyTorchModifierYAML,
    ScheduledModifier,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.modifier_thinning import (
    LayerThinningModifier,
    compress_strucure_pruned_module,
)
from sparseml.pytorch.sparsification.pruning import (
    REG_FUNCTIONS,
    REG_TENSORS,
    ACDCPruningModifier,
    ASRegModifier,
    BaseGradualPruningModifier,
    BasePruningModifier,
    CAPruningModifier,
    ConstantPruningModifier,
    FastCAPruningModifier,
    GaPPruningModifier,
    GlobalMagnitudePruningModifier,
    GMPruningModifier,
    GWProdPruningModifier,
    LayerPruningModifier,
    MagnitudePruningModifier,
    MFACPruningModifier,
    MovementPruningModifier,
    OBSPruningModifier,
    PatternLockModifier,
    PowerpropagationModifier,
    PowerpropagationWrapper,
    RigLPruningModifier,
    SnipMomentumPruningModifier,
    SRPPruningModifier,
    StructuredPruningModifier,
    TopKASTPruningModifier,
)
from sparseml.pytorch.sparsification.quantization import QuantizationModifier
from sparseml.pytorch.sparsification.training import (
    EpochRangeModifier,
    GradualParamModifier,
    LearningRateFunctionModifier,
    LearningRateModifier,
    SetLearningRateModifier,
    SetParamModifier,
    SetWeightDecayModifier,
    SparsificationLoggingModifier,
    TrainableParamsModifier,
)

_MOVED = {
    "sparseml.pytorch.sparsification.pruning": "BlockMaskCreator ConstantMaskCreator "
    "EmpiricalBlockFisherInverse FastCAPruningParamsScorer FisherInverse FisherInverseFast "
    "FisherInverseFastBlock FisherInverseFastPageSwap FisherInverseFastSmallBlocks "
    "FourBlockMaskCreator GWProdPruningParamsScorer GroupedPruningMaskCreator "
    "MFACPruningParamsScorer MagnitudePruningParamsScorer ModuleParamPruningMask "
    "ModulePruningAnalyzer MovementPruningParamsScorer NMPruningMaskCreator "
    "OBSPruningParamsScorer PatternMaskCreator PruningMaskCreator PruningParamsGradScorer "
    "PruningParamsScorer RigLPruningParamsScorer StructuredPruningMaskCreator "
    "UnstructuredPruningMaskCreator",
}
__getattr__, __dir__ = lazy_names(__name__, _MOVED)

__all__ = [
    "DISTILL_PARAM_GROUP_KEY",
    "PYTORCH_FRAMEWORK",
    "REG_FUNCTIONS",
    "REG_TENSORS",
    "ACDCPruningModifier",
    "ASRegModifier",
    "AssembleModifier",
    "BaseDistillationModifier",
    "BaseGradualPruningModifier",
    "BasePruningModifier",
    "BlockTuningModifier",
    "CAPruningModifier",
    "ConstantPruningModifier",
    "DistillationModifier",
    "EpochRangeModifier",
    "FastCAPruningModifier",
    "GMPruningModifier",
    "GWProdPruningModifier",
    "GaPPruningModifier",
    "GlobalMagnitudePruningModifier",
    "GradualParamModifier",
    "HiddenStateDistillationModifier",
    "LayerPruningModifier",
    "LayerThinningModifier",
    "LearningRateFunctionModifier",
    "LearningRateModifier",
    "MFACPruningModifier",
    "MagnitudePruningModifier",
    "Modifier",
    "ModifierProp",
    "MovementPruningModifier",
    "OBSPruningModifier",
    "PatternLockModifier",
    "PerLayerDistillationModifier",
    "PowerpropagationModifier",
    "PowerpropagationWrapper",
    "PyTorchModifierYAML",
    "QuantizationModifier",
    "RigLPruningModifier",
    "SRPPruningModifier",
    "ScheduledModifier",
    "ScheduledUpdateModifier",
    "SetLearningRateModifier",
    "SetParamModifier",
    "SetWeightDecayModifier",
    "SnipMomentumPruningModifier",
    "SparsificationLoggingModifier",
    "StructuredPruningModifier",
    "TopKASTPruningModifier",
    "TrainableParamsModifier",
    "compress_strucure_pruned_module",
    "sparsification_info",
]
__all__ += " ".join(_MOVED.values()).split()
