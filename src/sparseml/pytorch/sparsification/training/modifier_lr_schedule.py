"""Learning rate schedules known by the names of PyTorch's schedulers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.learning_rates import (
    multi_step_rate,
    step_rate,
    warm_restarts_rate,
)
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_number,
    between,
    field,
    of_types,
    one_of,
    plainly,
)
from sparseml.pytorch.sparsification.modifier import (
    ModifierProp,
    PyTorchModifierYAML,
    ScheduledUpdateModifier,
)
from sparseml.pytorch.sparsification.training.param_groups import LearningRateLogging
from sparseml.pytorch.utils.optimizers import set_optim_learning_rate
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.text import did_you_mean, quoted_list

_LR_CLASSES = {
    "StepLR": ("gamma", "step_size"),
    "MultiStepLR": ("gamma", "milestones"),
    "ExponentialLR": ("gamma",),
    "CosineAnnealingWarmRestarts": ("lr_min", "cycle_epochs"),
}
"""The schedules and the keys that ``lr_kwargs`` must have for each."""


@PyTorchModifierYAML()
class LearningRateModifier(LearningRateLogging, ScheduledUpdateModifier):
    """Starts at ``init_lr`` and lowers the learning rate by a schedule whose times are in epochs.

    ``StepLR`` multiplies by ``gamma`` every ``step_size`` epochs, ``MultiStepLR`` at each of the
    ``milestones`` (epochs of the run), ``ExponentialLR`` every epoch (it is kept as ``StepLR`` with
    ``step_size`` 1). ``CosineAnnealingWarmRestarts`` goes down to ``lr_min`` along a cosine every
    ``cycle_epochs``. The end only stops the schedule: the rate then stays as it is.

    | Sample yaml:
    |   !LearningRateModifier
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       lr_class: MultiStepLR
    |       lr_kwargs:
    |           gamma: 0.1
    |           milestones: [3.0, 7.0]
    |       init_lr: 0.1

    :param lr_class: name of the schedule
    :param lr_kwargs: what the schedule needs
    :param init_lr: in (0, 1]
    :param update_frequency: accepted for the sake of old recipes; every step is an update
    :param constant_logging: log whether or not the rate has changed
    """

    def __init__(
        self,
        lr_class: str,
        lr_kwargs: Mapping[str, Any],
        init_lr: float | str,
        start_epoch: float,
        end_epoch: float = -1.0,
        update_frequency: float = -1.0,
        constant_logging: bool = False,
    ) -> None:
        self._lr_class, self._lr_kwargs = _normalized(lr_class, lr_kwargs)
        super().__init__(
            start_epoch=start_epoch, end_epoch=end_epoch, end_comparator=-1, update_frequency=-1.0
        )
        self.init_lr = init_lr
        self.constant_logging = constant_logging
        self._require_milestones(self._start_epoch, self._end_epoch)

    init_lr = field(plainly(between(above=0.0, most=1.0)))
    constant_logging = field(as_flag)

    sparsification_types = of_types(SparsificationTypes.learning_rate)

    @ModifierProp()
    def lr_class(self) -> str:
        """Name of the schedule."""
        return self._lr_class

    @lr_class.setter  # type: ignore[no-redef]
    def lr_class(self, value: str) -> None:
        self._lr_class, self._lr_kwargs = _normalized(value, self._lr_kwargs)

    @ModifierProp()
    def lr_kwargs(self) -> dict[str, Any]:
        """What the schedule needs, times in epochs."""
        return self._lr_kwargs

    @lr_kwargs.setter  # type: ignore[no-redef]
    def lr_kwargs(self, value: Mapping[str, Any]) -> None:
        self._lr_class, self._lr_kwargs = _normalized(self._lr_class, value)

    def _require_milestones(self, start: float, end: float) -> None:
        # not in validate_schedule: start and end are changed one after the other
        for milestone in self._lr_kwargs.get("milestones", ()):
            if milestone <= start or (end != -1.0 and milestone >= end):
                until = "" if end == -1.0 else f" and before end_epoch {end}"
                raise ValueError(
                    f"milestones must be after start_epoch {start}{until}, found {milestone}"
                )

    def advance_epochs(self, ref_start_epoch: float | None = None) -> None:
        """Shift the schedule, milestones included, by ``ref_start_epoch`` epochs."""
        milestones = self._lr_kwargs.get("milestones")
        if ref_start_epoch is not None and milestones is not None:
            moved = [milestone + ref_start_epoch for milestone in milestones]
            self._lr_kwargs = {**self._lr_kwargs, "milestones": moved}
        super().advance_epochs(ref_start_epoch)

    def corrected_lr_info(
        self, steps_per_epoch: int, start_epoch: float, end_epoch: float
    ) -> tuple[str, dict[str, Any]]:
        """The schedule and its settings with times in whole optimizer steps from ``start_epoch``.

        A length is at least one step.

        :raises ValueError: for milestones that are not strictly between start and end
        """
        self._require_milestones(start_epoch, end_epoch)
        kwargs = dict(self._lr_kwargs)
        for name in ("step_size", "cycle_epochs"):
            if name in kwargs:
                kwargs[name] = max(round(kwargs[name] * steps_per_epoch), 1)
        if "milestones" in kwargs:
            start = max(start_epoch, 0.0)
            milestones = sorted(kwargs["milestones"])
            kwargs["milestones"] = [round((m - start) * steps_per_epoch) for m in milestones]
        return self._lr_class, kwargs

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Set the learning rate that belongs to ``epoch``; at the end leave it as it is."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if not self.end_pending(epoch, steps_per_epoch):
            set_optim_learning_rate(optimizer, self._rate(epoch, steps_per_epoch))

    def _rate(self, epoch: float, steps_per_epoch: int) -> float:
        lr_class, kwargs = self.corrected_lr_info(
            steps_per_epoch, self._start_epoch, self._end_epoch
        )
        start = max(self._start_epoch, 0.0)
        step = round((epoch - start) * steps_per_epoch)
        if self._end_epoch != -1.0:
            # a run that joins after the end gets what a whole run would have ended with
            step = min(step, max(math.ceil((self._end_epoch - start) * steps_per_epoch) - 1, 0))
        if lr_class == "StepLR":
            return step_rate(step, self.init_lr, kwargs["gamma"], kwargs["step_size"])
        if lr_class == "MultiStepLR":
            return multi_step_rate(step, self.init_lr, kwargs["gamma"], kwargs["milestones"])
        return warm_restarts_rate(step, self.init_lr, kwargs["lr_min"], kwargs["cycle_epochs"])


def _normalized(lr_class: str, lr_kwargs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    one_of(_LR_CLASSES)("lr_class", lr_class)
    if not isinstance(lr_kwargs, Mapping):
        raise ValueError(f"lr_kwargs must be a mapping, found {lr_kwargs!r}")
    needed = _LR_CLASSES[lr_class]
    missing = [name for name in needed if name not in lr_kwargs]
    if missing:
        raise ValueError(f"lr_kwargs of {lr_class} must have {quoted_list(missing, 'and')}")
    allowed = (*needed, "step_size") if lr_class == "ExponentialLR" else needed
    for name in lr_kwargs:
        if name not in allowed:
            raise ValueError(
                f"lr_kwargs of {lr_class} has {name!r}, known are {quoted_list(allowed, 'and')}"
                f"{did_you_mean(str(name), allowed)}"
            )
    checked = {name: _checked(name, value) for name, value in lr_kwargs.items()}
    if lr_class == "ExponentialLR":
        return "StepLR", {**checked, "step_size": 1.0}
    return lr_class, checked


def _checked(name: str, value: Any) -> Any:
    if name != "milestones":
        return plainly(between(least=0.0) if name == "lr_min" else between(above=0.0))(name, value)
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError(f"milestones must be a list of epochs, found {value!r}")
    return [plainly(as_number)(name, epoch) for epoch in value]
