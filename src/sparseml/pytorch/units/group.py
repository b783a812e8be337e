"""What must go together: heads, neurons, channels or stream dimensions, and all their slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparseml.pytorch.utils.names import canonical_name

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True, eq=False)
class Member:
    """The slices of one parameter that belong to the units of a group.

    :param param: the parameter's full name
    :param dim: the dimension along which it is cut, as the parameter is stored
    :param index: for every slice the unit that it belongs to, or -1; see
        :mod:`~sparseml.pytorch.units.index_maps`. Kept as int64 ``[slices]`` on the CPU
    :param follows: whether the slices only go when their unit is removed. Otherwise pruning the
        unit sets them to zero, and it is they whose zeros show that it is pruned
    """

    param: str
    dim: int
    index: Tensor
    follows: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "param", canonical_name(self.param))
        index = torch.as_tensor(self.index).detach().cpu()
        whole = index.dtype in _INTEGERS
        object.__setattr__(self, "index", index.long() if whole else index)


@dataclass(frozen=True, eq=False)
class UnitGroup:
    """Units that are pruned and removed one by one, each with all of its slices.

    One group is all the heads of a layer, all its neurons, the channels of a residual stream...
    It describes a model as it is: after a removal, make it anew.

    :param name: for messages
    :param size: how many units there are
    :param members: the slices of each unit, at least one
    :param gate: a factor per unit, shape ``[size]``, for those who put one on the units while they
        train; it loses its entries when units are removed. Multiplying is up to them
    :raises ValueError: for a map that is no map of ``size`` units, naming group, parameter,
        dimension, what was found and what is allowed
    """

    name: str
    size: int
    members: Sequence[Member]
    gate: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if self.size < 1 or not self.members:
            raise ValueError(
                f"unit group {self.name!r}: found {self.size} units in {len(self.members)} "
                "members, allowed is at least one of each"
            )
        self.check_gate()
        found = torch.zeros(self.size, dtype=torch.bool)
        for member in self.members:
            _check_index(self, member)
            found[member.index[member.index >= 0]] = True
        if not bool(found.all()):
            missing = (~found).nonzero()[:, 0].tolist()
            raise ValueError(
                f"unit group {self.name!r}: {len(missing)} of {self.size} units have no slice in "
                f"any of its members, the first is unit {missing[0]}"
            )

    @property
    def masked(self) -> list[str]:
        """The names of the parameters that are zero in a pruned unit."""
        return [member.param for member in self.members if not member.follows]

    @property
    def following(self) -> list[str]:
        """The names of the parameters that only lose the slices of a removed unit."""
        return [member.param for member in self.members if member.follows]

    def as_mask(self, keep: Tensor | Sequence[int]) -> Tensor:
        """Return which units are kept, bool ``[size]`` on the CPU.

        :param keep: one bool per unit, or the indices of those to keep
        :raises ValueError: for another number of bools, indices of no unit, and if no unit stays
        """
        given = torch.as_tensor(keep).detach().cpu()
        if given.dtype == torch.bool:
            mask, fits = given, given.shape == (self.size,)
        else:
            whole = given.ndim == 1 and (given.dtype in _INTEGERS or not len(given))
            fits = whole and bool(((given >= 0) & (given < self.size)).all())
            mask = torch.zeros(self.size, dtype=torch.bool)
            if fits:
                mask[given.long()] = True
        if not fits:
            raise ValueError(
                f"unit group {self.name!r}: what is kept must be {self.size} bools or a list of "
                f"indices below {self.size}, found {_described(given)}"
            )
        if not bool(mask.any()):
            raise ValueError(f"unit group {self.name!r}: at least one of its units must stay")
        return mask

    def check_gate(self) -> None:
        """Check that the gate, if there is one, still has an entry for every unit.

        :raises ValueError: if it has not
        """
        if self.gate is not None and self.gate.shape != (self.size,):
            raise ValueError(
                f"unit group {self.name!r}: found a gate of shape {tuple(self.gate.shape)}, "
                f"allowed is ({self.size},)"
            )


def misfit(group: str, member: Member, found: str, allowed: str) -> ValueError:
    """Return the error that a member does not fit, for whatever reason."""
    return ValueError(
        f"unit group {group!r}, {member.param} along dimension {member.dim}: found {found}, "
        f"allowed is {allowed}"
    )


def _check_index(group: UnitGroup, member: Member) -> None:
    index = member.index
    if member.dim < 0:
        raise misfit(group.name, member, "a negative dimension", "one counted from the front")
    if index.dtype != torch.int64 or index.ndim != 1 or not len(index):
        allowed = "one integer for each slice"
        raise misfit(group.name, member, f"an index map of {_described(index)}", allowed)
    lowest, highest = int(index.min()), int(index.max())
    if lowest < -1 or highest >= group.size:
        raise misfit(
            group.name,
            member,
            f"an index map from {lowest} to {highest}",
            f"-1 (no unit) to {group.size - 1}",
        )


def _described(tensor: Tensor) -> str:
    if tensor.dtype != torch.bool and tensor.ndim == 1 and 0 < len(tensor) <= 10:
        return str(tensor.tolist())
    return f"shape {tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"
