"""What was found in a model, for as long as it has the sizes that it had then."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from sparseml.pytorch.units.gated.kinds import QK, VO, GatedGroups, GatedUnits, Site
from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.units.index_maps import identity
from sparseml.pytorch.utils.layer_kinds import INPUTS, OUTPUTS, tensor_axes

Slices = dict[tuple[str, int], Tensor]
"""Name and dimension of a tensor -> which of its slices stay, bool."""


class _Known(NamedTuple):
    sizes: Hashable
    asked: Hashable
    groups: GatedGroups


_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def remember(model: nn.Module, inputs: object, groups: GatedGroups) -> None:
    """Keep what was found in a model with some inputs."""
    _KNOWN[model] = _Known(_sizes(model), _asked(inputs), groups)


def recalled(model: nn.Module, inputs: object) -> GatedGroups | None:
    """Return what was found in a model with such inputs, None where it may be another by now."""
    known = _KNOWN.get(model)
    if known is None or known.asked != _asked(inputs) or known.sizes != _sizes(model):
        return None
    return known.groups


def follow(model: nn.Module, keeps: Mapping[GatedUnits, Tensor]) -> None:
    """Number what is left after a removal, where what was removed is what was found.

    :param keeps: for each of the units one bool, True = keep
    """
    known = _KNOWN.pop(model, None)
    if known is None or not keeps.keys() <= set(known.groups.found):
        return
    slices = _slices(keeps)
    found = tuple(_left(model, units, keeps.get(units), slices) for units in known.groups.found)
    _KNOWN[model] = _Known(_sizes(model), known.asked, replace(known.groups, found=found))


def _sizes(model: nn.Module) -> Hashable:
    return tuple((name, id(one), one.shape) for name, one in model.named_parameters())


def _asked(inputs: object) -> Hashable:
    if isinstance(inputs, Mapping):
        return tuple((name, _asked(one)) for name, one in inputs.items())
    if isinstance(inputs, (tuple, list)):
        return tuple(_asked(one) for one in inputs)
    if isinstance(inputs, Tensor):
        return inputs.dtype, inputs.ndim
    return type(inputs).__name__


def _slices(keeps: Mapping[GatedUnits, Tensor]) -> Slices:
    found: Slices = {}
    for units, keep in keeps.items():
        for member in (*units.group.members, *units.buffers):
            stays = keep[member.index] | (member.index < 0)
            before = found.get((member.param, member.dim))
            found[member.param, member.dim] = stays if before is None else before & stays
    return found


def _left(model: nn.Module, units: GatedUnits, keep: Tensor | None, slices: Slices) -> GatedUnits:
    """The same units, those that are left numbered from 0 on."""

    def renumbered(index: Tensor, place: tuple[str, int]) -> Tensor:
        if place in slices:
            index = index[slices[place]]
        return index if keep is None else (keep.cumsum(0) - 1)[index].masked_fill(index < 0, -1)

    def member(one: Member) -> Member:
        return replace(one, index=renumbered(one.index, (one.param, one.dim)))

    def site(one: Site) -> Site:
        if one.where in (QK, VO):
            return replace(one, index=identity(size))
        return replace(one, index=renumbered(one.index, _place(model, one)))

    size = units.group.size if keep is None else int(keep.sum())
    group = UnitGroup(units.group.name, size, [member(one) for one in units.group.members])
    sites, buffers = tuple(map(site, units.sites)), tuple(map(member, units.buffers))
    return replace(units, group=group, sites=sites, buffers=buffers)


def _place(model: nn.Module, site: Site) -> tuple[str, int]:
    """The tensor and dimension that has the slices of a site."""
    layer = model.get_submodule(site.layer)
    prefix = f"{site.layer}." if site.layer else ""
    if isinstance(layer, nn.MultiheadAttention):
        return f"{prefix}in_proj_weight", 1
    axes = tensor_axes(layer).get("weight", (OUTPUTS,))
    return f"{prefix}weight", axes.index(INPUTS if site.where == "input" else OUTPUTS)
