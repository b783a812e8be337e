"""What a method decides: per parameter its mask, and its new weight where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Module


class Change(NamedTuple):
    """What becomes of one parameter.

    :param mask: bool, True = keep; the parameter's shape
    :param weight: the new value, zero where pruned; None where the old one stays but for the mask
    """

    mask: Tensor
    weight: Tensor | None = None


class Outcome(dict[str, Change]):
    """The :class:`Change` of each parameter, by the parameter's name."""

    notes: tuple[str, ...] = ()
    """Sentences on how it was found, for those who read of a run."""
    decade: int | None = None
    """That of the dampening that was chosen, relative to the mean diagonal of the Fisher matrix."""

    def complete(self, weights: Mapping[str, Tensor]) -> Outcome:
        """Return the outcome with a new weight for every parameter.

        :param weights: the old values, by name
        """
        made = Outcome(
            (name, Change(mask, weights[name] * mask if weight is None else weight))
            for name, (mask, weight) in self.items()
        )
        made.notes = self.notes
        return made

    @torch.no_grad()
    def write(self, module: Module) -> None:
        """Give the parameters of ``module`` the outcome's weights, or mask those that stay."""
        for name, (mask, weight) in self.items():
            param = module.get_parameter(name)
            param.copy_(param * mask.to(param.device) if weight is None else weight)


def misfit(name: str, param: Tensor, value: Tensor | None) -> ValueError:
    """Return the error for a value that is None or of another shape than its parameter."""
    found = "None" if value is None else f"shape {tuple(value.shape)}"
    return ValueError(f"{name} has shape {tuple(param.shape)}, found {found}")
