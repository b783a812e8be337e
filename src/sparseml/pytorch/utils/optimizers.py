"""Learning rates of an optimizer, and the optimizers inside one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any

from torch.optim import Optimizer


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


def stepping_optimizers(stepped: Any, optimizer: Any = None) -> list[Optimizer]:
    """Return the torch optimizers that really step when ``stepped`` does.

    They are looked for in its attributes, also in lists there, and in theirs: those innermost that
    share parameters with it, or itself. Several, where each steps a part of the parameters; none,
    where no torch optimizer is found.

    :param optimizer: what it has the parameters of, if it has no ``param_groups`` itself
    """
    return _stepping(stepped, _parameters(stepped) or _parameters(optimizer), {id(stepped)})


def _stepping(stepped: Any, params: set[int], seen: set[int]) -> list[Optimizer]:
    found: list[Optimizer] = []
    for inner in _optimizers_in(stepped):
        if id(inner) not in seen and not (params and params.isdisjoint(_parameters(inner))):
            seen.add(id(inner))
            found += _stepping(inner, params, seen)
    return found or ([stepped] if isinstance(stepped, Optimizer) else [])


def _optimizers_in(stepped: Any) -> Iterator[Optimizer]:
    for value in getattr(stepped, "__dict__", {}).values():
        for inner in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(inner, Optimizer):
                yield inner


def _parameters(stepped: Any) -> set[int]:
    groups = getattr(stepped, "param_groups", None) or ()
    return {id(param) for group in groups for param in group["params"]}


def states_of(optimizer: Any) -> list[MutableMapping[Any, Any]]:
    """Return the states (parameter to name to value) of an optimizer and of all that it holds."""
    states: dict[int, MutableMapping[Any, Any]] = {}
    seen, left = set(), [optimizer]
    while left:
        one = left.pop()
        if id(one) not in seen:
            seen.add(id(one))
            states |= {id(one.state): one.state} if hasattr(one, "state") else {}
            left += _optimizers_in(one)
    return list(states.values())
