"""Setting parameters to values, at once or gradually."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.sparsification.fields import declared_fields, field, fixed, one_of
from sparseml.pytorch.sparsification.modifier import (
    PyTorchModifierYAML,
    ScheduledModifier,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.training.selected_params import SelectedParams
from sparseml.utils.interpolation import INTERPOLATION_FUNCS, interpolate


def _checked_value(name: str, value: Any) -> Any:
    """``value`` as plain numbers; YAML takes texts such as ``1e-3`` for no number."""
    numbers = _numbers(name, value.tolist() if hasattr(value, "tolist") else value)
    _tensor(name, numbers)
    return numbers


def _numbers(name: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_numbers(name, item) for item in value]
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"{name} must consist of numbers, found {value!r}") from None
    return value


def _tensor(name: str, value: Any) -> Tensor:
    """``value`` in double precision, so that it is rounded only once, to the parameter's dtype."""
    try:
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} must be a number or nested lists of numbers of equal length, found {value!r}"
        ) from error


@PyTorchModifierYAML()
@declared_fields()
class SetParamModifier(SelectedParams, ScheduledModifier):
    """Sets parameters to a value when it starts.

    | Sample yaml:
    |   !SetParamModifier
    |       params: ["re:.*bias"]
    |       val: [0.1, 0.1, 0.3]
    |       start_epoch: 0.0

    :param val: a number or nested lists of numbers, in the shape of every selected parameter
    :param end_epoch: without effect: the value is set once and not taken back
    """

    params: str | Iterable[str]
    val: Any = field(_checked_value)
    params_strict: bool = True
    start_epoch: float = 0.0
    end_epoch: float = -1.0
    end_comparator: None = fixed(None)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Set the parameters."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self.start_pending(epoch, steps_per_epoch):
            self._write(self._values()["val"])

    def _values(self) -> dict[str, Tensor]:
        return {"val": _tensor("val", self.val)}


@PyTorchModifierYAML()
@declared_fields()
class GradualParamModifier(SelectedParams, ScheduledUpdateModifier):
    """Leads parameters from one value to another, along a curve over the epochs.

    | Sample yaml:
    |   !GradualParamModifier
    |       params: ["re:.*bias"]
    |       init_val: [0.0, 0.0, 0.0]
    |       final_val: [1.0, 1.0, 1.0]
    |       inter_func: linear
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 1.0

    :param init_val: a number or nested lists of numbers, in the shape of every selected parameter
    :param final_val: likewise
    :param inter_func: ``linear``, ``cubic`` or ``inverse_cubic``
    """

    params: str | Iterable[str]
    init_val: Any = field(_checked_value)
    final_val: Any = field(_checked_value)
    start_epoch: float
    end_epoch: float
    update_frequency: float
    inter_func: str = field(one_of(INTERPOLATION_FUNCS), default="linear")
    params_strict: bool = True
    min_end: float = fixed(0.0)
    end_comparator: int = fixed(1)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Set the parameters to the value that belongs to ``epoch``."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        share = self._share(epoch)
        first, last = self._values().values()
        self._write(last if share == 1.0 else torch.lerp(first, last, share))

    def share_at(self, epoch: float) -> float:
        """Return how much of the way from ``init_val`` to ``final_val`` is done at ``epoch``."""
        return 1.0 if self.init_val == self.final_val else self._share(epoch)

    def _share(self, epoch: float) -> float:
        start = max(self._start_epoch, 0.0)
        return interpolate(epoch, start, self._end_epoch, 0.0, 1.0, self.inter_func)

    def _values(self) -> dict[str, Tensor]:
        return {name: _tensor(name, getattr(self, name)) for name in ("init_val", "final_val")}
