"""How many weights each parameter keeps, from the shapes of all."""

from __future__ import annotations

from collections.abc import Sequence

from sparseml.pytorch.functional.layer_densities import density_counts
from sparseml.pytorch.utils.params import NamedLayerParam

__all__ = ["DensityBudget"]


class DensityBudget:
    """A sparsity for each parameter, so that all together have the one asked for, exactly.

    :param selected: the parameters
    :param sparsity: of all together, in [0, 1]
    :param rule: one of :data:`~sparseml.pytorch.functional.layer_densities.DENSITY_RULES`
    :raises ValueError: naming parameters that are no matrices or convolutions
    """

    def __init__(self, selected: Sequence[NamedLayerParam], sparsity: float, rule: str) -> None:
        flat = [found.name for found in selected if found.param.ndim < 2]
        if flat:
            raise ValueError(
                f"{rule} goes by the shapes of matrices and convolutions; leave out "
                f"{', '.join(flat[:5])}{', ...' if len(flat) > 5 else ''}"
            )
        shapes = [tuple(found.param.shape) for found in selected]
        self.counts = density_counts(shapes, sparsity, rule)
        self.sparsities = [
            count / max(found.param.numel(), 1)
            for count, found in zip(self.counts, selected, strict=True)
        ]
