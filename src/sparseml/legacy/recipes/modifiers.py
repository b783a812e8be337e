"""What modifiers of every framework have in common: their fields, and nothing that acts.

A framework derives its own modifiers from these or declares the same fields. Further keyword
arguments of their constructors go on to the classes that follow in the order of inheritance.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparseml.optim.declared_fields import Check, declared_fields, field, fixed, ignored, of_types
from sparseml.optim.scheduled import BaseScheduled, BaseUpdate
from sparseml.optim.types import SparsificationTypes
from sparseml.utils.iterables import convert_to_bool, validate_names


def _plain(_name: str, value: Any) -> Any:
    return value


def _flag(_name: str, value: Any) -> bool:
    return convert_to_bool(value)


def _names(owner: str) -> Check:
    return lambda name, value: validate_names(value, f"{name} of {owner}")


def _rate(name: str, value: Any) -> float:
    if not 0.0 < float(value) <= 1.0:
        raise ValueError(f"{name} must lie in (0, 1], found {value}")
    return float(value)


class _Repeating(BaseScheduled, BaseUpdate):
    """A modifier with the arguments of both."""


@declared_fields(hands_on=True)
class EpochRangeModifier(BaseScheduled):
    """Makes a recipe span at least the given epochs."""

    start_epoch: float
    end_epoch: float
    end_comparator: int = fixed(-1)

    sparsification_types = of_types(SparsificationTypes.general, SparsificationTypes.epoch)


@declared_fields(hands_on=True)
class SetLearningRateModifier(BaseScheduled):
    """Sets the learning rate.

    :param learning_rate: in (0, 1]
    :param end_epoch: has no effect
    :param constant_logging: log it at every step instead of only when it changes
    """

    learning_rate: float | str = field(_rate)
    start_epoch: float = -1.0
    end_epoch: float = ignored(default=-1.0)
    constant_logging: bool = field(_flag, default=False)
    end_comparator: None = fixed(None)

    sparsification_types = of_types(SparsificationTypes.learning_rate)


@declared_fields(hands_on=True)
class LearningRateModifier(_Repeating):
    """Changes the learning rate by a scheduler.

    :param lr_class: the scheduler's name
    :param lr_kwargs: its arguments, in epochs
    :param init_lr: the first learning rate, in (0, 1]
    :param end_epoch: when to stop; the last rate stays
    :param update_frequency: has no effect: every step is an update
    :param constant_logging: log it at every step instead of only when it changes
    """

    lr_class: str = field(_plain)
    lr_kwargs: dict[str, Any] = field(_plain)
    init_lr: float | str = field(_rate)
    start_epoch: float
    end_epoch: float = -1.0
    update_frequency: float = ignored(default=-1.0)
    constant_logging: bool = field(_flag, default=False)
    end_comparator: int = fixed(-1)
    min_frequency: float = fixed(-1.0)

    sparsification_types = of_types(SparsificationTypes.learning_rate)


@declared_fields(hands_on=True)
class TrainableParamsModifier(BaseScheduled):
    """Freezes parameters, or lets them train.

    :param params: names and patterns, or a token for all
    :param trainable: whether they train
    :param params_strict: whether every name must exist
    :param end_epoch: when to put things back
    """

    params: str | Iterable[str] = field(_names("TrainableParamsModifier"))
    trainable: bool = field(_flag)
    params_strict: bool = field(_flag, default=True)
    start_epoch: float = -1.0
    end_epoch: float = -1.0
    end_comparator: int = fixed(-1)

    sparsification_types = of_types(SparsificationTypes.general)


@declared_fields(hands_on=True)
class ConstantPruningModifier(_Repeating):
    """Keeps zeros at zero.

    :param params: names and patterns, or a token for all
    :param update_frequency: has no effect
    """

    params: str | Iterable[str] = field(_names("ConstantPruningModifier"))
    start_epoch: float = -1.0
    end_epoch: float = -1.0
    update_frequency: float = ignored(default=-1)
    end_comparator: int = fixed(-1)
    min_frequency: float = fixed(-1.0)

    sparsification_types = of_types(SparsificationTypes.pruning)


@declared_fields(hands_on=True)
class GMPruningModifier(_Repeating):
    """Prunes by magnitude, gradually.

    :param init_sparsity: the fraction of zeros to begin with
    :param final_sparsity: the fraction of zeros to end with
    :param update_frequency: epochs between updates
    :param params: names and patterns, or a token for all
    :param leave_enabled: keep zeros at zero after the end
    :param inter_func: the curve that leads from the first to the last fraction
    :param mask_type: the pattern that zeros follow
    """

    init_sparsity: float | str = field(_plain)
    final_sparsity: float | dict[float, list[str]] = field(_plain)
    start_epoch: float
    end_epoch: float
    update_frequency: float
    params: str | Iterable[str] = field(_names("GMPruningModifier"))
    leave_enabled: bool = field(_flag, default=True)
    inter_func: str = field(_plain, default="cubic")
    mask_type: str | list[int] = field(_plain, default="unstructured")
    end_comparator: int = fixed(-1)
    min_frequency: float = fixed(-1.0)

    sparsification_types = of_types(SparsificationTypes.pruning)
