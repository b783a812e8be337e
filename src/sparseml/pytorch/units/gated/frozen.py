"""Keeping the weights of units that fade away as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.gated.kinds import GatedUnits
from sparseml.pytorch.utils.optimizers import states_of


class FrozenSlices:
    """The slices of units that are not kept: neither gradients, nor what an optimizer remembers,
    nor weight decay moves them.

    :param keeps: for units one bool each, True = not frozen
    """

    def __init__(self, model: nn.Module, keeps: Mapping[GatedUnits, Tensor]) -> None:
        gone: dict[tuple[str, int], Tensor] = {}
        for units, keep in keeps.items():
            for member in units.group.members:
                slices = (member.index >= 0) & ~keep[member.index]
                before = gone.get((member.param, member.dim))
                gone[member.param, member.dim] = slices if before is None else before | slices
        self._slices: dict[int, tuple[nn.Parameter, list[tuple[int, Tensor]]]] = {}
        for (name, dim), slices in gone.items():
            param = model.get_parameter(name)
            if bool(slices.any()):
                places = slices.nonzero()[:, 0].to(param.device)
                _, there = self._slices.setdefault(id(param), (param, []))
                if not any(d == dim and torch.equal(p, places) for d, p in there):  # tied
                    there.append((dim, places))
        self._values: list[list[Tensor]] = []

    @torch.no_grad()
    def clear(self) -> None:
        """Set the slices to 0, which they stay from now on."""
        for param, there in self._slices.values():
            for dim, places in there:
                param.index_fill_(dim, places, 0)
        self._values = []

    @torch.no_grad()
    def before_step(self, optimizer: Any) -> None:
        """Zero gradients and momenta of the slices, and note their values."""
        if not self._values:
            self._values = [
                [param.index_select(dim, places).clone() for dim, places in there]
                for param, there in self._slices.values()
            ]
        states = states_of(optimizer)
        for param, there in self._slices.values():
            remembered = [
                value
                for state in states
                for value in state.get(param, {}).values()
                if isinstance(value, Tensor) and value.shape == param.shape
            ]
            gradients = [] if param.grad is None else [param.grad]
            for tensor in (*gradients, *remembered):
                for dim, places in there:
                    tensor.index_fill_(dim, places.to(tensor.device), 0)

    @torch.no_grad()
    def after_step(self) -> None:
        """Give the slices the values back that they had."""
        for (param, there), values in zip(self._slices.values(), self._values, strict=False):
            for (dim, places), value in zip(there, values, strict=True):
                param.index_copy_(dim, places, value)
