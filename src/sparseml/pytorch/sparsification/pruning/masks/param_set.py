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
        self._full_names = [
            f"{layer}.{param}" if layer else param
            for layer, param in zip(self._layer_names, self._param_names, strict=True)
        ]
        for layer, name, full in zip(
            self._layers, self._param_names, self._full_names, strict=True
        ):
            if not isinstance(getattr(layer, name, None), Tensor):
                raise RuntimeError(
                    f"{type(layer).__name__} has no parameter {name!r}, wanted for {full!r}"
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
        return self._full_names

    @property
    def names(self) -> list[str]:
        """Each mask's name, ``<layer>.<param>.sparsity_mask``."""
        return [f"{name}.sparsity_mask" for name in self._full_names]

    @property
    def params(self) -> list[Parameter]:
        """The parameters as they are now."""
        owners = zip(self._layers, self._param_names, strict=True)
        return [getattr(layer, name) for layer, name in owners]

    @property
    def complete(self) -> bool:
        """Whether all layers can be asked; while a model is being copied, some cannot yet."""
        return all("_parameters" in vars(layer) for layer in self._layers)

    def require_shapes(self, values: Sequence[Tensor | None]) -> None:
        """Check that there is one value of the right shape for each parameter.

        :raises ValueError: naming the parameter whose value is None or of another shape
        """
        if len(values) != len(self):
            raise ValueError(f"{len(self)} masks are needed, found {len(values)}")
        for name, param, value in zip(self._full_names, self.params, values, strict=True):
            if value is None or value.shape != param.shape:
                found = "None" if value is None else f"shape {tuple(value.shape)}"
                raise ValueError(f"{name} has shape {tuple(param.shape)}, found {found}")


def _one_each(value: str | Sequence[str], count: int, name: str) -> list[str]:
    values = [value] * count if isinstance(value, str) else list(value)
    if len(values) != count:
        raise ValueError(f"{name} must hold one name for each of {count} layers, found {values}")
    return values
