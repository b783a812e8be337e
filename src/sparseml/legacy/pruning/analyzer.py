"""Looking at how sparse a layer's parameter is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.utils.layers import get_layer
from sparseml.pytorch.utils.tensors.sharded import local_part
from sparseml.pytorch.utils.tensors.stats import tensor_sparsity

__all__ = ["ModulePruningAnalyzer"]


class ModulePruningAnalyzer:
    """Measures the sparsity of one parameter.

    :param module: the layer that owns it
    :param name: the layer's name
    :param param_name: the parameter's name in the layer
    """

    def __init__(self, module: Module, name: str, param_name: str = "weight") -> None:
        self._module = module
        self._name = name
        self._param_name = param_name
        if not isinstance(getattr(module, param_name, None), Tensor):
            raise RuntimeError(
                f"{type(module).__name__} has no parameter {param_name!r}, wanted for {self.tag!r}"
            )

    @staticmethod
    def analyze_layers(
        module: Module, layers: Sequence[str], param_name: str = "weight"
    ) -> list[ModulePruningAnalyzer]:
        """An analyzer for each of the named layers of ``module``."""
        return [ModulePruningAnalyzer(get_layer(name, module), name, param_name) for name in layers]

    @property
    def module(self) -> Module:
        """The layer."""
        return self._module

    @property
    def name(self) -> str:
        """The layer's name."""
        return self._name

    @property
    def param_name(self) -> str:
        """The parameter's name in the layer."""
        return self._param_name

    @property
    def tag(self) -> str:
        """The parameter's name in the model."""
        return f"{self._name}.{self._param_name}" if self._name else self._param_name

    @property
    def param(self) -> Tensor:
        """The parameter."""
        return getattr(self._module, self._param_name)

    @property
    def param_sparsity(self) -> Tensor:
        """The fraction of exact zeros (0-d)."""
        return self.param_sparsity_dim()

    def param_sparsity_dim(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """The fraction of exact zeros in each slice across ``dim``, or altogether for None.

        Of a parameter that several processes share, in the part that this one holds.
        """
        return tensor_sparsity(local_part(self.param), dim)
