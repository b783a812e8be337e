"""
What modifiers of every framework have in common: their fields, and nothing that acts.

A framework derives its own modifiers from these or declares the same fields. Further keyword
arguments of their constructors go on to the classes that follow in the order of inheritance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparseml.optim.fields import of_types
from sparseml.optim.props import ModifierProp
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


def _field(name: str, doc: str) -> Any:
    attribute = f"_{name}"
    return ModifierProp(
        func_get=lambda modifier: getattr(modifier, attribute),
        func_set=lambda modifier, value: setattr(modifier, attribute, value),
        doc=doc,
    )


class _Repeating(BaseScheduled, BaseUpdate):
    def __init__(
        self, start_epoch: float, end_epoch: float, update_frequency: float, **kwargs: Any
    ) -> None:
        given = {
            "start_epoch": start_epoch,
            "end_epoch": end_epoch,
            "update_frequency": update_frequency,
        }
        super().__init__(**{"end_comparator": -1, "min_frequency": -1.0, **given, **kwargs})


class EpochRangeModifier(BaseScheduled):
    """
    Makes a recipe span at least the given epochs.

    :param start_epoch: the first epoch
    :param end_epoch: where the last epoch ends
    """

    sparsification_types = of_types(SparsificationTypes.general, SparsificationTypes.epoch)

    def __init__(self, start_epoch: float, end_epoch: float, **kwargs: Any) -> None:
        given = {"start_epoch": start_epoch, "end_epoch": end_epoch}
        super().__init__(**{"end_comparator": -1, **given, **kwargs})


class SetLearningRateModifier(BaseScheduled):
    """
    Sets the learning rate.

    :param learning_rate: in (0, 1]
    :param start_epoch: when
    :param end_epoch: has no effect
    :param constant_logging: log it at every step instead of only when it changes
    """

    sparsification_types = of_types(SparsificationTypes.learning_rate)
    learning_rate = _field("learning_rate", "The learning rate.")
    constant_logging = _field("constant_logging", "Whether it is logged at every step.")

    def __init__(
        self,
        learning_rate: float | str,
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        constant_logging: bool = False,
        **kwargs: Any,
    ) -> None:
        given = {"start_epoch": start_epoch, "end_epoch": -1.0}
        super().__init__(**{"end_comparator": None, **given, **kwargs})
        self._learning_rate = float(learning_rate)
        self._constant_logging = convert_to_bool(constant_logging)
        if not 0.0 < self._learning_rate <= 1.0:
            raise ValueError(f"learning_rate must lie in (0, 1], found {learning_rate}")


class LearningRateModifier(_Repeating):
    """
    Changes the learning rate by a scheduler.

    :param lr_class: the scheduler's name
    :param lr_kwargs: its arguments, in epochs
    :param init_lr: the first learning rate, in (0, 1]
    :param start_epoch: when to start
    :param end_epoch: when to stop; the last rate stays
    :param update_frequency: has no effect: every step is an update
    :param constant_logging: log it at every step instead of only when it changes
    """

    sparsification_types = of_types(SparsificationTypes.learning_rate)
    lr_class = _field("lr_class", "The scheduler's name.")
    lr_kwargs = _field("lr_kwargs", "The scheduler's arguments.")
    init_lr = _field("init_lr", "The first learning rate.")
    constant_logging = _field("constant_logging", "Whether it is logged at every step.")

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
        self._lr_class = lr_class
        self._lr_kwargs = lr_kwargs
        self._init_lr = float(init_lr)
        self._constant_logging = convert_to_bool(constant_logging)
        if not 0.0 < self._init_lr <= 1.0:
            raise ValueError(f"init_lr must lie in (0, 1], found {init_lr}")


class TrainableParamsModifier(BaseScheduled):
    """
    Freezes parameters, or lets them train.

    :param params: names and patterns, or a token for all
    :param trainable: whether they train
    :param params_strict: whether every name must exist
    :param start_epoch: when to start
    :param end_epoch: when to put things back
    """

    sparsification_types = of_types(SparsificationTypes.general)
    params = _field("params", "Names and patterns of the parameters.")
    trainable = _field("trainable", "Whether they train.")
    params_strict = _field("params_strict", "Whether every name must exist.")

    def __init__(
        self,
        params: str | Iterable[str],
        trainable: bool,
        params_strict: bool = True,
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        **kwargs: Any,
    ) -> None:
        given = {"start_epoch": start_epoch, "end_epoch": end_epoch}
        super().__init__(**{"end_comparator": -1, **given, **kwargs})
        self._params = validate_names(params, f"params of {type(self).__name__}")
        self._trainable = convert_to_bool(trainable)
        self._params_strict = convert_to_bool(params_strict)


class ConstantPruningModifier(_Repeating):
    """
    Keeps zeros at zero.

    :param params: names and patterns, or a token for all
    :param start_epoch: when to start
    :param end_epoch: when to stop
    :param update_frequency: has no effect
    """

    sparsification_types = of_types(SparsificationTypes.pruning)
    params = _field("params", "Names and patterns of the parameters.")

    def __init__(
        self,
        params: str | Iterable[str],
        start_epoch: float = -1.0,
        end_epoch: float = -1.0,
        update_frequency: float = -1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(start_epoch, end_epoch, update_frequency=-1, **kwargs)
        self._params = validate_names(params, f"params of {type(self).__name__}")


class GMPruningModifier(_Repeating):
    """
    Prunes by magnitude, gradually.

    :param init_sparsity: the fraction of zeros to begin with
    :param final_sparsity: the fraction of zeros to end with
    :param start_epoch: when to start
    :param end_epoch: when to stop
    :param update_frequency: epochs between updates
    :param params: names and patterns, or a token for all
    :param leave_enabled: keep zeros at zero after the end
    :param inter_func: the curve that leads from the first to the last fraction
    :param mask_type: the pattern that zeros follow
    """

    sparsification_types = of_types(SparsificationTypes.pruning)
    params = _field("params", "Names and patterns of the parameters.")
    init_sparsity = _field("init_sparsity", "The fraction of zeros to begin with.")
    final_sparsity = _field("final_sparsity", "The fraction of zeros to end with.")
    leave_enabled = _field("leave_enabled", "Whether zeros stay after the end.")
    inter_func = _field("inter_func", "The curve from the first to the last fraction.")
    mask_type = _field("mask_type", "The pattern that zeros follow.")

    def __init__(
        self,
        init_sparsity: float | str,
        final_sparsity: float | dict[float, list[str]],
        start_epoch: float,
        end_epoch: float,
        update_frequency: float,
        params: str | Iterable[str],
        leave_enabled: bool = True,
        inter_func: str = "cubic",
        mask_type: str | list[int] = "unstructured",
        **kwargs: Any,
    ) -> None:
        super().__init__(start_epoch, end_epoch, update_frequency=update_frequency, **kwargs)
        self._params = validate_names(params, f"params of {type(self).__name__}")
        self._init_sparsity = init_sparsity
        self._final_sparsity = final_sparsity
        self._leave_enabled = convert_to_bool(leave_enabled)
        self._inter_func = inter_func
        self._mask_type = mask_type
