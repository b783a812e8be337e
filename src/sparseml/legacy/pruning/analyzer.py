"""Looking at how sparse a layer's parameter is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.utils.layers import get_layer
from sparseml.pytorch.utils.tensors.sharded import local_part
from sparseml.pytorch.utils.tensors.stats import tensor_sparsity

__all__ = ["ModulePruningAnalyzer"]


@dataclass(frozen=True, eq=False, repr=False)
class ModulePruningAnalyzer:
    """Measures the sparsity of one parameter of a named layer, which must have it."""

    module: Module
    name: str
    param_name: str = "weight"

    def __post_init__(self) -> None:
        if not isinstance(getattr(self.module, self.param_name, None), Tensor):
            owner, param = type(self.module).__name__, self.param_name
            raise RuntimeError(f"{owner} has no parameter {param!r}, wanted for {self.tag!r}")

    @staticmethod
    def analyze_layers(
        module: Module, layers: Sequence[str], param_name: str = "weight"
    ) -> list[ModulePruningAnalyzer]:
        """Return an analyzer for each of the named layers of ``module``."""
        return [ModulePruningAnalyzer(get_layer(name, module), name, param_name) for name in layers]

    @property
    def tag(self) -> str:
        """The parameter's name in the model."""
        return f"{self.name}.{self.param_name}" if self.name else self.param_name

    @property
    def param(self) -> Tensor:
        """The parameter."""
        return getattr(self.module, self.param_name)

    @property
    def param_sparsity(self) -> Tensor:
        """The fraction of exact zeros (0-d)."""
        return self.param_sparsity_dim()

    def param_sparsity_dim(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """Return the fraction of exact zeros in each slice across ``dim``, altogether for None.

        Of a parameter that several processes share, in the part that this one holds.
        """
        return tensor_sparsity(local_part(self.param), dim)
