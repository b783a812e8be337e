"""Attention heads as what a pruner prunes: those of the parameters that it selects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.units import Member, UnitGroup, attention_heads
from sparseml.pytorch.units.probing import with_values
from sparseml.pytorch.utils.layer_kinds import out_in_dim
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.text import shown


def heads_among(module: Module, selected: Sequence[NamedLayerParam]) -> list[UnitGroup]:
    """Return the groups of heads whose weights are selected.

    :param module: it is run once on small inputs; from the meta device on a copy, filled at random
    :raises ValueError: for a model without heads, one that does not say what it takes, and for an
        attention of which only some weights are selected
    """
    try:
        groups = attention_heads(with_values(module))
    except ValueError as error:
        where = "in Python mask_type may also be a list of UnitGroup"
        raise ValueError(f"mask_type 'heads': {error}; {where}") from error
    names, found = {one.name for one in selected}, []
    for group in groups:
        missing = [name for name in group.masked if name not in names]
        if missing and len(missing) < len(group.masked):
            raise ValueError(
                f"mask_type 'heads' needs all weights of an attention, but of {group.name} params "
                f"leave out {shown(missing)}"
            )
        if not missing:
            found.append(group)
    return found


class HighestOfHeads:
    """Gives the weights of a head the highest score among them, in each part of a parameter.

    So the mean over a head is that over its parts: queries, keys, values and outputs.

    :param groups: the heads
    :param selected: the parameters
    """

    def __init__(self, groups: Sequence[UnitGroup], selected: Sequence[NamedLayerParam]) -> None:
        owners = {one.name: one for one in selected}
        self._parts: dict[str, tuple[int, Tensor]] = {}
        for group in groups:
            for member in group.members:
                if not member.follows:
                    one = owners[member.param]
                    dim = out_in_dim(one.layer, one.param_name, member.dim)
                    self._parts[member.param] = dim, _runs(member)

    def __call__(self, name: str, scores: Tensor) -> Tensor:
        dim, runs = self._parts[name]
        rows = scores.movedim(dim, 0).flatten(1)
        runs = runs.to(rows.device)
        highest = rows.new_zeros(int(runs[-1]) + 1).scatter_reduce(0, runs, rows.amax(1), "amax")
        return (
            highest[runs, None]
            .expand_as(rows)
            .reshape(scores.movedim(dim, 0).shape)
            .movedim(0, dim)
        )


def _runs(member: Member) -> Tensor:
    """Number the runs of neighbouring slices that are one unit's."""
    changes = member.index[1:] != member.index[:-1]
    return torch.cat([torch.zeros(1, dtype=torch.long), changes.cumsum(0)])
