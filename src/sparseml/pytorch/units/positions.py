"""Where the units of groups lie in the tensors of a model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparseml.pytorch.units.group import Member, UnitGroup, misfit
from sparseml.pytorch.utils.layer_kinds import axis_of, axis_size, out_in_dim, to_out_in
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.text import did_you_mean

__all__ = ["axis_index", "positions"]


def positions(
    groups: Sequence[UnitGroup], params: Sequence[NamedLayerParam], stored: bool = False
) -> tuple[tuple[tuple[int, int, Tensor], ...], ...]:
    """Describe units by positions in a list of tensors, as patterns of the selection take them.

    Members that only follow, or whose parameter is not in the list, are left out.

    :param params: the parameters that are pruned
    :param stored: describe the tensors as they are stored, otherwise as ``[out, in, *kernel]``
        (:func:`~sparseml.pytorch.utils.layer_kinds.to_out_in`)
    :return: for each group, for each of its members: place in ``params``, dimension, and the unit
        of every slice along it (int64 ``[slices]``, -1 = none)
    :raises ValueError: naming group, parameter and dimension, for members that do not fit their
        parameter, and for groups without a member in ``params``
    """
    places = {param.name: place for place, param in enumerate(params)}
    found = []
    for group in groups:
        members = [
            (places[member.param], *_located(group, member, params[places[member.param]], stored))
            for member in group.members
            if member.param in places and not member.follows
        ]
        if not members:
            raise ValueError(
                f"unit group {group.name!r}: none of {group.masked} is among the {len(params)} "
                f"parameters to prune{did_you_mean((group.masked or [''])[0], list(places))}"
            )
        found.append(tuple(members))
    return tuple(found)


def axis_index(group: UnitGroup, member: Member, owner: NamedLayerParam) -> Tensor:
    """Return the unit of everything along a layer's axis, int64 ``[axis_size]``.

    That is the member's own map, but for the dimension of a grouped convolution's weight that
    holds the channels of one group: a map of these speaks of the same channels in each group.

    :raises ValueError: when the parameter has no such dimension, or another size along it
    """
    layer, name, tensor = owner.layer, owner.param_name, owner.param
    if member.dim >= tensor.ndim:
        found = f"a tensor of shape {tuple(tensor.shape)}"
        raise misfit(group.name, member, found, f"one of at least {member.dim + 1} dimensions")
    slices, units = tensor.shape[member.dim], axis_size(layer, axis_of(layer, name, member.dim))
    if len(member.index) not in (slices, units):
        also = f" (or all {units} of the layer)" if units != slices else ""
        raise misfit(
            group.name,
            member,
            f"an index map of {len(member.index)} slices",
            f"one of the {slices} slices of shape {tuple(tensor.shape)}{also}",
        )
    return member.index.repeat(units // len(member.index))


def _located(
    group: UnitGroup, member: Member, owner: NamedLayerParam, stored: bool
) -> tuple[int, Tensor]:
    """The dimension and the index map of a member in the layout that is asked for."""
    index = axis_index(group, member, owner)
    shape, dim = owner.param.shape, member.dim
    if not stored:
        shape = to_out_in(owner.layer, owner.param_name, owner.param).shape
        dim = out_in_dim(owner.layer, owner.param_name, dim)
    by_group = index.reshape(-1, shape[dim])
    if bool((by_group != by_group[0]).any()):
        raise misfit(
            group.name,
            member,
            f"slices that are different units in each of {len(by_group)} groups of channels",
            "the same units in each; name the outputs instead, or let the member follow",
        )
    return dim, by_group[0]
