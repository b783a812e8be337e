"""Quantization as recipes describe it. It is loaded, printed and composed, not performed yet."""

from __future__ import annotations

from sparseml.pytorch.sparsification.quantization.modifier_quantization import QuantizationModifier

__all__ = ["QuantizationModifier"]
