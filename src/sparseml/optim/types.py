"""What a modifier does to a model."""

from __future__ import annotations

from enum import Enum


class SparsificationTypes(Enum):
    """The kinds of change that a modifier can bring about."""

    general = "general"
    epoch = "epoch"
    learning_rate = "learning_rate"
    activation_sparsity = "activation_sparsity"
    pruning = "pruning"
    quantization = "quantization"
    distillation = "distillation"
    regularization = "regularization"
    structured = "structured"
