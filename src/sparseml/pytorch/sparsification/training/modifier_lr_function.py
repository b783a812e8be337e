"""Leading the learning rate along a function of the epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.learning_rates import (
    cosine_rate,
    cycle_of,
    cyclic_linear_rate,
    decayed_rate,
    linear_rate,
    warmup_factor,
)
from sparseml.pytorch.sparsification.fields import (
    Check,
    as_number,
    between,
    declared_fields,
    field,
    fixed,
    ignored,
    of_types,
    one_of,
    plainly,
)
from sparseml.pytorch.sparsification.modifier import (
    Loggers,
    PyTorchModifierYAML,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.training.param_groups import (
    LearningRateLogging,
    checked_groups,
    selected_groups,
)
from sparseml.pytorch.utils.optimizers import set_optim_learning_rate
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["LearningRateFunctionModifier"]

_LOGGER = logging.getLogger(__name__)
_DECAYING = ("exponential", "step")
_DEFAULTS = {"cycle_mul": 1.0, "warmup": 0.0, "decay_rate": 0.9, "decay_epochs": 1.0}
"""The fields of schedules in cycles, with what they are there unless given."""


_POSITIVE = between(above=0.0)


def _positive_or_all(name: str, value: Any) -> float:
    number = as_number(name, value)
    return number if number == -1.0 else _POSITIVE(name, value)


def _cycle_field(name: str, check: Check) -> Any:
    """A field of schedules in cycles; None in others, whose recipes do not have it."""
    return field(check, default=None, unset=lambda mod: _DEFAULTS[name] if mod.in_cycles else None)


@PyTorchModifierYAML()
@declared_fields()
class LearningRateFunctionModifier(LearningRateLogging, ScheduledUpdateModifier):
    """Leads the learning rate along a curve, at every step from start to end.

    ``linear`` and ``cosine`` lead from ``init_lr`` to ``final_lr``; ``cyclic_linear`` does so over
    and over, and at the end stays at ``init_lr``. ``exponential`` multiplies by ``decay_rate`` in
    every ``decay_epochs``, a little at each step, ``step`` at once after them, both never to below
    ``final_lr``.

    ``exponential`` and ``step``, and ``linear`` and ``cosine`` where any of ``cycle_mul``,
    ``warmup``, ``decay_rate`` and ``decay_epochs`` is given, begin anew every ``cycle_epochs``, as
    in the recipes of CAP (Kuznedelev et al., 2023). Each such cycle is ``cycle_mul`` times the one
    before it; over its first ``warmup`` epochs the rate is multiplied by a line from 0 to 1. A last
    cycle that is not whole is cut off, and after the end the rate of the last step stays.

    | Sample yaml:
    |   !LearningRateFunctionModifier
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       lr_func: linear
    |       init_lr: 0.1
    |       final_lr: 0.001

    :param lr_func: ``linear``, ``cosine``, ``cyclic_linear``, ``exponential`` or ``step``
    :param init_lr: in [0, 1]
    :param final_lr: in [0, 1]; for ``exponential`` and ``step`` at most ``init_lr``
    :param cycle_epochs: length of a cycle; -1, the default outside ``cyclic_linear``, for all from
        start to end; 1 for ``cyclic_linear``
    :param param_groups: indices of the groups to set; all if None
    :param update_frequency: accepted for the sake of old recipes; every step is an update
    :param cycle_mul: factor from one cycle to the next; 1 if None
    :param warmup: epochs at the start of each cycle, fewer than it has; 0 if None
    :param decay_rate: in (0, 1]; 0.9 if None
    :param decay_epochs: epochs in which ``decay_rate`` applies once; 1 if None
    """

    lr_func: str = field(one_of(("linear", "cosine", "cyclic_linear", *_DECAYING)))
    init_lr: float = field(plainly(between(0.0, 1.0)))
    final_lr: float = field(plainly(between(0.0, 1.0)))
    start_epoch: float
    end_epoch: float
    cycle_epochs: Any = field(
        _positive_or_all, default=None, unset=lambda mod: -1.0 if mod.in_cycles else 1.0
    )
    param_groups: Iterable[int] | None = field(checked_groups, default=None)
    update_frequency: float = ignored(default=-1.0)
    cycle_mul: Any = _cycle_field("cycle_mul", _POSITIVE)
    warmup: Any = _cycle_field("warmup", between(least=0.0))
    decay_rate: Any = _cycle_field("decay_rate", between(above=0.0, most=1.0))
    decay_epochs: Any = _cycle_field("decay_epochs", _POSITIVE)
    end_comparator: int = fixed(1)

    _lr_func: str | None = None
    _cycle_epochs: float | None = None

    def _set_up(self) -> None:
        self.validate_schedule()

    sparsification_types = of_types(SparsificationTypes.learning_rate)

    @property
    def in_cycles(self) -> bool:
        """Whether the schedule is made of cycles with warm-up, decay and a factor between them."""
        return self.lr_func in _DECAYING or bool(self._given())

    def validate_schedule(self) -> None:
        """Check the schedule; cycles, warm-up and decay must fit the curve."""
        super().validate_schedule()
        if self._lr_func is None:  # the base class comes before the fields
            return
        if self.lr_func == "cyclic_linear":
            for name in self._given():
                raise ValueError(
                    f"{name} goes with lr_func 'linear', 'cosine', 'exponential' or 'step', found "
                    "'cyclic_linear'; 'linear' with cycle_mul 1.0 has the same cycles"
                )
            _POSITIVE("cycle_epochs", self.cycle_epochs)
        if not self.in_cycles:
            return
        if self.lr_func in _DECAYING and self.final_lr > self.init_lr:
            raise ValueError(
                f"final_lr of lr_func {self.lr_func!r} must be at most init_lr {self.init_lr}, "
                f"found {self.final_lr}"
            )
        if self.warmup >= self._cycle_length():
            raise ValueError(
                f"warmup must be less than the {self._cycle_length():g} epochs of a cycle, "
                f"found {self.warmup}"
            )

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Attach to a model; warn of a length of cycles that nothing is made of."""
        super().initialize(module, epoch, loggers, **kwargs)
        cycle = self._cycle_epochs  # 1 is what old recipes say of every curve
        if self.lr_func not in ("linear", "cosine") or self.in_cycles or cycle in (None, 1.0):
            return
        if 0.0 < cycle < self._end_epoch - max(self._start_epoch, 0.0):
            _LOGGER.warning(
                "LearningRateFunctionModifier: cycle_epochs %g has no effect on lr_func %r alone; "
                "with cycle_mul 1.0 it begins anew every %g epochs",
                cycle, self.lr_func, cycle,
            )  # fmt: skip

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Set the learning rate that belongs to ``epoch``.

        :raises IndexError: if the optimizer lacks one of ``param_groups``
        """
        super().update(module, optimizer, epoch, steps_per_epoch)
        groups = selected_groups(optimizer, self.param_groups)
        set_optim_learning_rate(optimizer, self._rate(epoch, steps_per_epoch), groups)

    def _given(self) -> list[str]:
        return [name for name in _DEFAULTS if getattr(self, f"_{name}") is not None]

    def _cycle_length(self) -> float:
        whole = self._end_epoch - max(self._start_epoch, 0.0)
        return whole if self.cycle_epochs == -1.0 else float(self.cycle_epochs)

    def _rate(self, epoch: float, steps_per_epoch: int) -> float:
        if self.in_cycles:
            return self._rate_in_cycles(epoch, steps_per_epoch)
        start = max(self._start_epoch, 0.0)
        length, done = self._end_epoch - start, epoch - start
        if self.lr_func == "cyclic_linear":
            return cyclic_linear_rate(
                done * steps_per_epoch,
                length * steps_per_epoch,
                self.cycle_epochs * steps_per_epoch,
                self.init_lr,
                self.final_lr,
            )
        curve = linear_rate if self.lr_func == "linear" else cosine_rate
        return curve(done / length, self.init_lr, self.final_lr)

    def _rate_in_cycles(self, epoch: float, steps_per_epoch: int) -> float:
        # a run that joins after the end gets what a whole run would have ended with
        last = math.ceil(round(self._end_epoch * steps_per_epoch, 6)) - 1
        step = min(epoch * steps_per_epoch, last) - max(self._start_epoch, 0.0) * steps_per_epoch
        length = self._cycle_length() * steps_per_epoch
        cycle, into = cycle_of(max(step, 0.0), length)
        rates = (self.init_lr, self.final_lr)
        if self.lr_func == "linear":
            rate = linear_rate(into / (length - 1) if length > 1.0 else 0.0, *rates)
        elif self.lr_func == "cosine":
            rate = cosine_rate(into / length, *rates)
        else:
            periods = into / (self.decay_epochs * steps_per_epoch)
            rate = decayed_rate(periods, *rates, self.decay_rate, self.lr_func == "step")
        warm = warmup_factor(into, self.warmup * steps_per_epoch)
        return float(rate * warm * self.cycle_mul**cycle)
