"""Unit groups from the lists of names that recipes hold, and where they lie in the tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from sparseml.pytorch.units.entries import require_whole
from sparseml.pytorch.units.group import Member, UnitGroup, misfit
from sparseml.pytorch.units.index_maps import repeats, tiles
from sparseml.pytorch.utils.layer_kinds import axis_of, axis_size, out_in_dim, to_out_in
from sparseml.pytorch.utils.names import canonical_name
from sparseml.pytorch.utils.params import NamedLayerParam, iter_layer_params
from sparseml.utils.text import did_you_mean, few, quoted_list, shown

_LOGGER = logging.getLogger(__name__)

STRUCTURE_DIMS = {"filter": 0, "channel": 1}
"""The dimension of ``[out, in, *kernel]`` along which each type of structure lies."""


def require_structure_type(structure_type: str) -> int:
    """Return the dimension of a type of structure.

    :raises ValueError: for one that is not in :data:`STRUCTURE_DIMS`
    """
    if structure_type not in STRUCTURE_DIMS:
        raise ValueError(
            f"structure_type must be {quoted_list(STRUCTURE_DIMS)}, found {structure_type!r}"
        )
    return STRUCTURE_DIMS[structure_type]


def groups_from_indices(
    tensor_group_idxs: Sequence[Sequence[int]],
    params: Sequence[NamedLayerParam],
    structure_type: str = "filter",
) -> list[UnitGroup]:
    """Return the groups of parameters that are masked alike, along the structure's dimension.

    Where a size is a multiple of the group's smallest, each unit stands for that many neighbours.
    Parameters with a single slice (the input of a depthwise convolution) are not masked, and left
    out; so are groups of such.

    :param tensor_group_idxs: places in ``params`` of the members of each group
    :raises ValueError: for another structure type, a parameter without that dimension, and for
        sizes that are no multiples of the smallest
    """
    dim = require_structure_type(structure_type)
    groups = []
    for places in tensor_group_idxs:
        members = [params[place] for place in places]
        for owner in members:
            if owner.param.ndim <= dim:
                shape = tuple(owner.param.shape)
                raise ValueError(f"{owner.name} of shape {shape} has no {structure_type}s")
        sizes = [to_out_in(o.layer, o.param_name, o.param).shape[dim] for o in members]
        units = min((size for size in sizes if size > 1), default=0)
        if not units:
            continue
        names = [owner.name for owner in members]
        if any(size > 1 and size % units for size in sizes):
            raise ValueError(
                "tensors that are masked alike must have sizes that are multiples of the "
                f"smallest, found {few(sizes)}; the group is {few(names)}"
            )
        pairs = zip(members, sizes, strict=True)
        alike = [_alike(owner, size, dim, units) for owner, size in pairs if size > 1]
        groups.append(UnitGroup(",".join(names), units, alike))
    return groups


def _alike(owner: NamedLayerParam, size: int, dim: int, units: int) -> Member:
    own = out_in_dim(owner.layer, owner.param_name, dim)
    # a transposed convolution stores the inputs of all groups, of which a plain one has a part
    times = max(owner.param.shape[own] // size, 1)
    return Member(owner.name, own, tiles(repeats(units, size // units), times))


def groups_from_map(
    model: nn.Module,
    param_group_dependency_map: Mapping[str, Sequence[str]],
    structure_type: str = "filter",
    strict: bool = True,
) -> list[UnitGroup]:
    """Return the groups of parameters that lose filters or channels together.

    Where a size is a multiple of the group's smallest, each unit stands for that many neighbours.

    :param param_group_dependency_map: key: comma separated names of the parameters that are zero
        in the same units, along the structure's dimension (vectors along their only one); it
        becomes the group's name. Value: names of the parameters whose opposite dimension follows
    :param strict: demand that all names exist. Otherwise unknown ones are skipped, and groups of
        nothing else
    :raises ValueError: for another structure type, and when the names do not fit the model
    :raises RuntimeError: for sharded parameters
    """
    dim = require_structure_type(structure_type)
    params = {param.name: param for param in iter_layer_params(model)}
    groups = []
    for key, dependents in param_group_dependency_map.items():
        names = [name.strip() for name in key.split(",") if name.strip()]
        masked = _slices(names, dim, params, strict)
        followers = _slices(dependents, 1 - dim, params, strict)
        if masked:
            groups.append(_group(key, masked, followers))
    return groups


class _Slices(NamedTuple):
    """A parameter, seen as slices along one dimension as it is stored, and its layer's axis."""

    param: NamedLayerParam
    dim: int
    axis: str
    size: int


def _slices(
    names: Iterable[str], dim: int, params: Mapping[str, NamedLayerParam], strict: bool
) -> list[_Slices]:
    found = []
    for name in map(canonical_name, names):
        if name in params and params[name].param.ndim > 0:
            param = params[name]
            require_whole(name, param.param)
            own = out_in_dim(param.layer, param.param_name, min(dim, param.param.ndim - 1))
            axis = axis_of(param.layer, param.param_name, own)
            found.append(_Slices(param, own, axis, axis_size(param.layer, axis)))
        elif strict:
            raise ValueError(
                f"param_group_dependency_map names {shown(name)}, which is no parameter "
                "(with at least one dimension) of the module"
                f"{did_you_mean(name, list(params))}"
            )
        else:
            _LOGGER.warning("%r is no parameter of the module; skipped while thinning", name)
    return found


def _group(key: str, masked: list[_Slices], followers: list[_Slices]) -> UnitGroup:
    # a depthwise convolution has but one channel, which is none of the units
    sizes = (one.size for one in masked if one.param.param.shape[one.dim] == one.size)
    units = min(sizes, default=0)
    if not units:
        raise ValueError(f"no parameter of the group {key!r} has units along the dimension to thin")
    members = []
    for place, slices in enumerate((*masked, *followers)):
        if slices.size % units:
            raise ValueError(
                f"{slices.param.name} has {slices.size} {slices.axis}, which is no multiple of the "
                f"{units} units of the group {key!r}"
            )
        index = repeats(units, slices.size // units)
        follows = place >= len(masked)
        members.append(Member(slices.param.name, slices.dim, index, follows))
    return UnitGroup(key, units, members)


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
