"""Reports on the sparsity and quantization of a model, as data and as loggable items."""

from sparseml.pytorch.utils.sparsification_info.configs import (
    CountAndPercent,
    SparsificationPruning,
    SparsificationQuantization,
    SparsificationSummaries,
)
from sparseml.pytorch.utils.sparsification_info.module_sparsification_info import (
    ModuleSparsificationInfo,
    log_module_sparsification_info,
)

__all__ = [
    "CountAndPercent",
    "ModuleSparsificationInfo",
    "SparsificationPruning",
    "SparsificationQuantization",
    "SparsificationSummaries",
    "log_module_sparsification_info",
]
