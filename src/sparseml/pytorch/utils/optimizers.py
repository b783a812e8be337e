"""Reading and setting the learning rates of an optimizer."""

from __future__ import annotations

from collections.abc import Iterable

from torch.optim import Optimizer

__all__ = ["get_optim_groups_learning_rates", "get_optim_learning_rate", "set_optim_learning_rate"]


def get_optim_learning_rate(optim: Optimizer) -> float:
    """Return the learning rate of the first parameter group; a RuntimeError if there is none."""
    for group in optim.param_groups:
        return float(group["lr"])
    raise RuntimeError("cannot read a learning rate: the optimizer has no parameter groups")


def get_optim_groups_learning_rates(optim: Optimizer) -> list[float]:
    """Return the learning rate of every parameter group, in order."""
    return [float(group["lr"]) for group in optim.param_groups]


def set_optim_learning_rate(
    optim: Optimizer, value: float, groups: Iterable[int] | None = None
) -> None:
    """Set the learning rate of the parameter groups with the given indices (all if None).

    A rate that the optimizer keeps as a tensor (``capturable``) is changed in place.

    :raises IndexError: for an index that no group has
    """
    count = len(optim.param_groups)
    for index in range(count) if groups is None else groups:
        if not 0 <= index < count:
            raise IndexError(f"no parameter group {index}: the optimizer has {count}")
        group = optim.param_groups[index]
        if hasattr(group["lr"], "fill_"):
            group["lr"].fill_(value)
        else:
            group["lr"] = value
