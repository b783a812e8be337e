"""What modifiers that act on chosen parameters have in common."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_optional_names,
    field,
    for_all,
    of_types,
)
from sparseml.pytorch.sparsification.modifier import Loggers, Modifier
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.pytorch.utils.tensors.parametrized import parameter_of
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.iterables import validate_names
from sparseml.utils.text import shown

_LOGGER = logging.getLogger(__name__)


def _checked_params(name: str, params: str | Iterable[str]) -> str | list[str]:
    checked = validate_names(params, name)
    if not checked:
        raise ValueError(
            f"{name} must name at least one parameter or pattern (or be '__ALL__' or "
            f"'__ALL_PRUNABLE__'), found {shown(params)}"
        )
    return checked


class SelectedParams(Modifier):
    """The fields ``params`` and ``params_strict``, and the parameters they select.

    :param params: ``__ALL__``, ``__ALL_PRUNABLE__``, or names and ``re:`` patterns
    :param params_strict: demand that every entry of ``params`` matches something
    :param exclude: parameters to leave alone although ``params`` selects them, in the same syntax
    :raises ValueError: for another string, and without any entry
    """

    def __init__(
        self,
        params: str | Iterable[str],
        params_strict: bool,
        *,
        exclude: str | Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.params, self.exclude = params, exclude
        self.params_strict = params_strict
        self._selected: list[NamedLayerParam] = []

    params = field(_checked_params)
    exclude = for_all(as_optional_names, default=None)
    params_strict = field(as_flag)

    sparsification_types = of_types(SparsificationTypes.general)

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find the parameters.

        :raises RuntimeError: with ``params_strict``, for entries that match nothing
        :raises ValueError: if a parameter cannot take the values meant for it
        """
        self._selected = self.select(module, self.params)
        if not self._selected:
            _LOGGER.warning("%s selects no parameter with %s", type(self).__name__, self.params)
        self._check_values()
        super().initialize(module, epoch, loggers, **kwargs)

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Let go of the parameters."""
        super().finalize(module, reset_loggers, **kwargs)
        self._selected = []

    def _values(self) -> dict[str, Tensor]:
        """Return the values that parameters are set to, by the fields that they stand in."""
        return {}

    def _write(self, value: Tensor) -> None:
        with torch.no_grad():
            for _, param in self._named_parameters():
                param.copy_(value)

    def _check_values(self) -> None:
        """:raises ValueError: if a parameter cannot take the values meant for it"""
        for field_name, value in self._values().items():
            for name, param in self._named_parameters():
                if param.is_meta:
                    raise ValueError(
                        f"the parameter {name} is on the meta device, where it takes no values; "
                        "load the module first"
                    )
                if param.shape != value.shape:
                    raise ValueError(
                        f"{field_name} has the shape {list(value.shape)}, but the parameter {name} "
                        f"has {list(param.shape)}"
                    )

    def _named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        # looked up through the layer, which may have got new parameters, as when cast or sharded
        for selected in self._selected:
            yield selected.name, parameter_of(selected.layer, selected.param_name)
