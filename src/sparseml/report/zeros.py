"""How many zeros there are, and were asked for, in the layers of a run."""

from __future__ import annotations

from collections.abc import Sequence

from sparseml.report.schema import Layer


def _considered(layers: Sequence[Layer]) -> Sequence[Layer]:
    return [layer for layer in layers if layer.asked is not None] or layers


def considered_weights(layers: Sequence[Layer]) -> int:
    """How many weights :func:`pruned_sparsity` is about."""
    return sum(layer.parameters for layer in _considered(layers))


def pruned_sparsity(layers: Sequence[Layer]) -> float | None:
    """The fraction of zeros in the parameters that were asked to be sparse, else in all listed."""
    total = considered_weights(layers)
    return sum(layer.zeros for layer in _considered(layers)) / total if total else None


def asked_sparsity(layers: Sequence[Layer]) -> float | None:
    """The fraction of zeros that was asked for in those parameters that it was asked of."""
    asked = [layer for layer in layers if layer.asked is not None]
    total = considered_weights(asked)
    return sum((one.asked or 0.0) * one.parameters for one in asked) / total if total else None
