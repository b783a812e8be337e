"""fairseq's float32 copies of 16-bit parameters, and what an optimizer remembers of them."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer


@dataclass(frozen=True)
class Master:
    """Where the float32 copy of a parameter lies: in a tensor of the optimizer, from ``start`` on.

    :param start: None where the tensor is the copy, and of no other parameter
    """

    param: Parameter
    held: Parameter
    start: int | None = None

    def part_of(self, value: Tensor) -> Tensor:
        """Return what of a tensor, laid out as the optimizer's, is the parameter's; no copy."""
        if self.start is None:
            return value
        return value.detach()[self.start : self.start + self.param.numel()].view_as(self.param)

    def copy(self) -> Tensor:
        """Return the float32 copy itself, with its gradient."""
        part = self.part_of(self.held)
        if self.start is not None and self.held.grad is not None:
            part.grad = self.part_of(self.held.grad)
        return part


def masters_of(optimizer: Any) -> list[Master]:
    """Return the float32 copies that an optimizer of fairseq moves in place of parameters.

    :param optimizer: ``trainer.optimizer``; none but those of ``--fp16`` and ``--bf16`` have any
    """
    params, copies = (
        getattr(optimizer, "fp16_params", None),
        getattr(optimizer, "fp32_params", None),
    )
    if params is None or copies is None:
        return []
    if isinstance(copies, (dict, Tensor)):  # flat, one tensor per device
        flat: dict[Any, Any] = copies if isinstance(copies, dict) else {None: copies}
        starts, found = dict.fromkeys(flat, 0), []
        for param in params:
            key = next(iter(flat)) if len(flat) == 1 else param.device.index
            found.append(Master(param, flat[key], starts[key]))
            starts[key] += param.numel()
        return found
    return [Master(param, copy) for param, copy in zip(params, copies, strict=True)]


@torch.no_grad()
def final_gradients(optimizer: Any, masters: list[Master]) -> None:
    """Bring gradients to what the optimizer steps by: unscaled, normalised and clipped.

    In 16-bit training fairseq leaves that to the step itself.

    :param optimizer: ``trainer.optimizer``
    """
    unscale = getattr(optimizer, "_unscale_grads", None)
    if unscale is None:
        return
    unscale()
    for master in masters:
        exact = master.copy().grad
        if master.param.grad is not None and exact is not None:
            master.param.grad.copy_(exact)


class MasterOptimizer:
    """A torch optimizer of float32 copies, with its state by parameter of the model, for modifiers.

    :param optimizer: the torch optimizer
    """

    def __init__(self, optimizer: Optimizer, masters: list[Master]) -> None:
        self.optimizer = optimizer
        self.state = MasterStates(optimizer, masters)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the optimizer, with the copies for parameters."""
        return self.optimizer.param_groups


class MasterStates(MutableMapping[Tensor, dict[str, Any]]):
    """What an optimizer remembers of each parameter of the model, as views of what it has.

    Of copies that share a tensor, forgetting one zeroes its part; the count of steps is the
    tensor's, and goes on.
    """

    def __init__(self, optimizer: Optimizer, masters: list[Master]) -> None:
        self._optimizer = optimizer
        self._masters = {id(master.param): master for master in masters}

    def __getitem__(self, param: Tensor) -> dict[str, Any]:
        master = self._masters[id(param)]
        if master.held not in self._optimizer.state:  # asking would make an entry
            raise KeyError(param)
        values = self._optimizer.state[master.held]
        if master.start is None:
            return values
        size = master.held.numel()
        return {
            name: master.part_of(value)
            if isinstance(value, Tensor) and value.numel() == size and value.ndim
            else value
            for name, value in values.items()
        }

    def __setitem__(self, param: Tensor, values: dict[str, Any]) -> None:
        raise TypeError("what an optimizer remembers of a float32 copy cannot be set")

    @torch.no_grad()
    def __delitem__(self, param: Tensor) -> None:
        master, values = self._masters[id(param)], self[param]
        if master.start is None:
            del self._optimizer.state[master.held]
        else:
            for value in values.values():
                if isinstance(value, Tensor) and value.shape == param.shape:
                    value.zero_()

    def __iter__(self) -> Iterator[Tensor]:
        for master in self._masters.values():
            if master.held in self._optimizer.state:
                yield master.param

    def __len__(self) -> int:
        return sum(1 for _ in self)
