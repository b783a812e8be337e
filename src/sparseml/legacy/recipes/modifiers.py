"""
What modifiers of every framework have in common: their fields, and nothing that acts.

A framework derives its own modifiers from these or declares the same fields. Further keyword
arguments of their constructors go on to the classes that follow in the order of inheritance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparseml.optim.fields import field, of_types
from sparseml.optim.scheduled import BaseScheduled, BaseUpdate
from sparseml.optim.types import SparsificationTypes
from sparseml.utils.iterables import convert_to_bool, validate_names

__all__ = [
    "ConstantPruningModifier",
    "EpochRangeModifier",
    "GMPruningModifier",
    "LearningRateModifier",
    "SetLearningRateModifier",
    "TrainableParamsModifier",
]


def _plain(_name: str, value: Any) -> Any:
    return value


def _flag(_name: str, value: Any) -> bool:
    return convert_to_bool(value)


def _rate(name: str, value: Any) -> float:
    if not 0.0 < float(value) <= 1.0:
        raise ValueError(f"{name} must lie in (0, 1], found {value}")
    return float(value)


def _names(name: str, value: Any) -> Any:
    return validate_names(value, name)


class _Scheduled(BaseScheduled):
    """Has the schedule that its arguments say, and ends when it starts or later."""

    def __init__(self, start_epoch: float, end_epoch: float, **kwargs: Any) -> None:
        given = {"start_epoch": start_epoch, "end_epoch": end_epoch}
        super().__init__(**{"end_comparator": -1, **given, **kwargs})


class _Repeating(_Scheduled, BaseUpdate):
    def __init__(self, start_epoch: float, end_epoch: float, **kwargs: Any) -> None:
        super().__init__(start_epoch, end_epoch, **{"min_frequency": -1.0, **kwargs})


class EpochRangeModifier(_Scheduled):
    """Makes a recipe span at least the given epochs.

    :param start_epoch: the first epoch
    :param end_epoch: where the last epoch ends
    """

    sparsification_types = of_types(SparsificationTypes.general, SparsificationTypes.epoch)

    def __init__(self, start_epoch: float, end_epoch: float, **kwargs: Any) -> None:
        super().__init__(start_epoch, end_epoch, **kwargs)


class SetLearningRateModifier(_Scheduled):
    """Sets the learning rate.

    :param learning_rate: in (0, 1]
    :param start_epoch: when
    :param end_epoch: has no effect
    :param constant_logging: log it at every step instead of only when it changes
    """

    sparsification_types = of_types(SparsificationTypes.learning_rate)
    learning_rate = field(_rate)
    constant_logging = field(_flag)

    def __init__(
        self,
        learning_rate: float | str,
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        constant_logging: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(start_epoch, -1.0, **{"end_comparator": None, **kwargs})
        self.learning_rate = learning_rate
        self.constant_logging = constant_logging


class LearningRateModifier(_Repeating):
    """Changes the learning rate by a scheduler.

    :param lr_class: the scheduler's name
    :param lr_kwargs: its arguments, in epochs
    :param init_lr: the first learning rate, in (0, 1]
    :param start_epoch: when to start
    :param end_epoch: when to stop; the last rate stays
    :param update_frequency: has no effect: every step is an update
    :param constant_logging: log it at every step instead of only when it changes
    """

    sparsification_types = of_types(SparsificationTypes.learning_rate)
    lr_class = field(_plain)
    lr_kwargs = field(_plain)
    init_lr = field(_rate)
    constant_logging = field(_flag)

    def __init__(
        self,
        lr_class: str,
        lr_kwargs: dict[str, Any],
        init_lr: float | str,
        start_epoch: float,
        end_epoch: float = -1.0,
        update_frequency: float = -1.0,
        constant_logging: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(start_epoch, end_epoch, update_frequency=-1.0, **kwargs)
        self.lr_class = lr_class
        self.lr_kwargs = lr_kwargs
        self.init_lr = init_lr
        self.constant_logging = constant_logging


class TrainableParamsModifier(_Scheduled):
    """Freezes parameters, or lets them train.

    :param params: names and patterns, or a token for all
    :param trainable: whether they train
    :param params_strict: whether every name must exist
    :param start_epoch: when to start
    :param end_epoch: when to put things back
    """

    sparsification_types = of_types(SparsificationTypes.general)
    params = field(_names)
    trainable = field(_flag)
    params_strict = field(_flag)

    def __init__(
        self,
        params: str | Iterable[str],
        trainable: bool,
        params_strict: bool = True,
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(start_epoch, end_epoch, **kwargs)
        self.params = params
        self.trainable = trainable
        self.params_strict = params_strict


class ConstantPruningModifier(_Repeating):
    """Keeps zeros at zero.

    :param params: names and patterns, or a token for all
    :param start_epoch: when to start
    :param end_epoch: when to stop
    :param update_frequency: has no effect
    """

    sparsification_types = of_types(SparsificationTypes.pruning)
    params = field(_names)

    def __init__(
        self,
        params: str | Iterable[str],
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        update_frequency: float = -1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(start_epoch, end_epoch, update_frequency=-1.0, **kwargs)
        self.params = params


class GMPruningModifier(_Repeating):
    """Prunes by magnitude, gradually.

    :param params: names and patterns, or a token for all
    :param init_sparsity: the fraction of zeros to begin with
    :param final_sparsity: the fraction of zeros to end with
    :param start_epoch: when to start
    :param end_epoch: when to stop
    :param update_frequency: epochs between updates
    :param leave_enabled: keep zeros at zero after the end
    :param inter_func: the curve that leads from the first to the last fraction
    :param mask_type: the pattern that zeros follow
    """

    sparsification_types = of_types(SparsificationTypes.pruning)
    params = field(_names)
    init_sparsity = field(_plain)
    final_sparsity = field(_plain)
    leave_enabled = field(_flag)
    inter_func = field(_plain)
    mask_type = field(_plain)

    def __init__(
        self,
        params: str | Iterable[str],
        init_sparsity: float | str,
        final_sparsity: float | dict[float, list[str]],
        start_epoch: float,
        end_epoch: float,
        update_frequency: float,
        leave_enabled: bool = True,
        inter_func: str = "cubic",
        mask_type: str | list[int] = "unstructured",
        **kwargs: Any,
    ) -> None:
        super().__init__(start_epoch, end_epoch, update_frequency=update_frequency, **kwargs)
        self.params = params
        self.init_sparsity = init_sparsity
        self.final_sparsity = final_sparsity
        self.leave_enabled = leave_enabled
        self.inter_func = inter_func
        self.mask_type = mask_type
