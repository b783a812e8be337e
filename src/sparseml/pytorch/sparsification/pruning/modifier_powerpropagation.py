"""Training with weights that tend to zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.fields import (
    argument,
    as_flag,
    as_given,
    as_names,
    as_number,
    as_optional_names,
    declared_fields,
    field,
    fixed,
    new_field,
)
from sparseml.pytorch.sparsification.modifier import (
    Loggers,
    PyTorchModifierYAML,
    ScheduledModifier,
)
from sparseml.pytorch.sparsification.pruning.layers.powerpropagation_wrapper import (
    PowerpropagationWrapper,
    require_alpha,
)
from sparseml.pytorch.utils.layers import swap_modules


def _as_alpha(name: str, value: Any) -> float:
    number = as_number(name, value)
    require_alpha(name, number)
    return number


@PyTorchModifierYAML()
@declared_fields()
class PowerpropagationModifier(ScheduledModifier):
    """Lets the weights of layers stand for a power of themselves from start to end.

    Many then end up near zero (Schwarz et al., "Powerpropagation", 2021). In between a layer ``x``
    is kept in ``x.layer``. Neither start nor end changes what the model computes.

    | Sample yaml:
    |   !PowerpropagationModifier
    |       params: ['re:.*conv.*weight']
    |       alpha: 2.0
    |       start_epoch: 0.0
    |       end_epoch: 10.0

    :param params: parameters of ``Linear`` and ``Conv2d`` layers: names, ``re:`` patterns,
        ``__ALL__`` or ``__ALL_PRUNABLE__``
    :param alpha: the exponent, at least 1
    :param update_frequency: accepted for the sake of old recipes; nothing happens in between
    :param exclude: parameters to leave alone although ``params`` selects them, in the same syntax
    :param strict: demand that every entry of ``params`` matches something
    """

    end_comparator: int = fixed(-1)
    start_epoch: float
    end_epoch: float
    params: str | Iterable[str] = field(as_names)
    alpha: float = field(_as_alpha, default=1.0)
    strict: bool = field(as_flag, default=True, serializable=False)
    update_frequency: float = argument(as_given, default=-1.0)
    exclude: str | Iterable[str] | None = new_field(as_optional_names, default=None)

    def _set_up(self) -> None:
        self._layers: dict[str, Module] = {}
        self._wrapped = False

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Find the layers.

        :raises RuntimeError: with ``strict``, for entries that match nothing
        :raises ValueError: for layers other than ``Linear`` and ``Conv2d``
        """
        if not self._initialized:
            found = self.select(module, self.params, self.strict)
            self._layers = {param.layer_name: param.layer for param in found}
            self._wrapped = False
            for name, layer in self._layers.items():
                if not name:
                    raise ValueError(f"params selects the {type(layer).__name__} itself as a layer")
                PowerpropagationWrapper(layer)
        super().initialize(module, epoch, loggers, **kwargs)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Wrap the layers at the start, unwrap them at the end."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if epoch >= self._end_epoch >= 0.0:
            self._set_wrapped(module, False)
        elif self.start_pending(epoch, steps_per_epoch):
            self._set_wrapped(module, True)

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Unwrap the layers, if the end has not come."""
        super().finalize(module, reset_loggers, **kwargs)
        if module is not None:
            self._set_wrapped(module, False)

    def progress_state(self) -> dict[str, Any]:
        """Return how far this modifier has come, and whether the layers are wrapped."""
        return {**super().progress_state(), "wrapped": self._wrapped}

    def load_structure_state(self, module: Module, state: Mapping[str, Any]) -> None:
        """Wrap or unwrap the layers, so that the weights of a checkpoint fit."""
        super().load_structure_state(module, state)
        self._set_wrapped(module, state["wrapped"])

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore the schedule.

        :raises RuntimeError: when the layers are wrapped and were not, or the other way around
        """
        super().load_progress_state(state)
        if state["wrapped"] != self._wrapped:
            raise RuntimeError(
                "layers are powerpropagated in the state or in the model, but not in both; call "
                "load_structure_state (or load_checkpoint) first"
            )

    def _set_wrapped(self, module: Module, wrapped: bool) -> None:
        for name, layer in self._layers.items() if wrapped != self._wrapped else ():
            if wrapped:
                wrapper = PowerpropagationWrapper(layer)
                wrapper.set_alpha(self.alpha)
                wrapper.train(layer.training)
                swap_modules(module, name, wrapper)
            else:
                old = swap_modules(module, name, layer)
                if isinstance(old, PowerpropagationWrapper):
                    old.set_alpha(1.0)
        self._wrapped = wrapped
