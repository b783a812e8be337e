"""Parameters, known by the layers that own them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import Module, Parameter

__all__ = ["ParamSet"]


class ParamSet:
    """Parameters that are looked up anew through their layers each time.

    So they stay the right ones when a model is moved, converted or made smaller.

    :param layers: the layers that own the parameters, one per parameter
    :param param_names: the parameter's name in its layer, for all or one per layer
    :param layer_names: by default the positions
    :raises RuntimeError: for a layer without the parameter
    :raises ValueError: for lists of different lengths
    """

    def __init__(
        self,
        layers: Sequence[Module],
        param_names: str | Sequence[str],
        layer_names: Sequence[str] | None = None,
    ) -> None:
        self._layers = list(layers)
        count = len(self._layers)
        self._param_names = _one_each(param_names, count, "param_names")
        positions = [str(index) for index in range(count)]
        self._layer_names = _one_each(
            positions if layer_names is None else layer_names, count, "layer_names"
        )
        for index, (layer, name) in enumerate(zip(self._layers, self._param_names, strict=True)):
            if not isinstance(getattr(layer, name, None), Tensor):
                raise RuntimeError(
                    f"{type(layer).__name__} has no parameter {name!r}, "
                    f"wanted for {self.full_names[index]!r}"
                )

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def layers(self) -> list[Module]:
        """The layers that own the parameters."""
        return self._layers

    @property
    def param_names(self) -> list[str]:
        """Each parameter's name in its layer."""
        return self._param_names

    @property
    def layer_names(self) -> list[str]:
        """Each layer's name."""
        return self._layer_names

    @property
    def full_names(self) -> list[str]:
        """Each parameter's name in the model, ``<layer>.<param>``."""
        return [
            f"{layer}.{param}" if layer else param
            for layer, param in zip(self._layer_names, self._param_names, strict=True)
        ]

    @property
    def names(self) -> list[str]:
        """Each mask's name, ``<layer>.<param>.sparsity_mask``."""
        return [f"{name}.sparsity_mask" for name in self.full_names]

    @property
    def params(self) -> list[Parameter]:
        """The parameters as they are now."""
        return self._params

    @property
    def _params(self) -> list[Parameter]:
        return [self._param(index) for index in range(len(self))]

    def _param(self, index: int) -> Parameter:
        return getattr(self._layers[index], self._param_names[index])

    @property
    def _complete(self) -> bool:
        # while a model is being copied, some of the copy's layers have no attributes yet
        return all("_parameters" in vars(layer) for layer in self._layers)

    def _require_shape(self, index: int, value: Tensor | None) -> None:
        shape = tuple(self._param(index).shape)
        if value is None or tuple(value.shape) != shape:
            found = "None" if value is None else f"shape {tuple(value.shape)}"
            raise ValueError(f"{self.full_names[index]} has shape {shape}, found {found}")


def _one_each(value: str | Sequence[str], count: int, name: str) -> list[str]:
    values = [value] * count if isinstance(value, str) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} must hold one name for each of {count} layers, found {values}")
    return values
