"""The channels inside of heads: those of queries and keys, and those of values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.cutting import SEVERAL, reached
from sparseml.pytorch.units.gated.flow import Flow
from sparseml.pytorch.units.gated.kinds import QK, VO, GatedUnits, Site
from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.units.hidden import HiddenUnits
from sparseml.pytorch.units.index_maps import identity, offset, repeats, tiles
from sparseml.pytorch.utils.layer_kinds import INPUTS, OUTPUTS, axis_size, tensor_axes
from sparseml.pytorch.utils.names import canonical_named_modules

# kinds of rotary positions whose frequencies are computed anew for long texts
_CHANGING = ("dynamic", "longrope")


class NoChannels(Exception):
    """Why the channels of some heads cannot be told apart."""


def head_channels(model: nn.Module, units: HiddenUnits, flow: Flow) -> list[GatedUnits]:
    """Return the channels of queries and keys, and of values, of the heads of one attention.

    With grouped queries a head is one of keys with all of its queries; their channels go together.

    Where positions rotate queries and keys, a unit is a pair of channels, the same in all heads.

    :raises NoChannels: with positions of other kinds that mix channels, and norms of queries and
        keys
    """
    maker = model.get_submodule(units.makers[0])
    if isinstance(maker, nn.MultiheadAttention):
        return _of_torch(units, maker)
    call = next((c for c in flow.calls if c.layer == units.reader), None)
    if call is None:
        raise NoChannels("their reader was not run")
    inside = {id(leaf) for leaf in flow.leaves_of(call.read)}
    outputs = {c.layer: c.output for c in flow.calls if id(c.output) in inside}
    # beside queries, keys and values there may be biases of positions
    made = {name: outputs[name] for name in units.makers if name in outputs}
    if len(made) < len(units.makers):
        raise NoChannels("something comes between the layers that make them and attention")
    heads = {
        name: next(m.index for m in units.group.members if m.param == f"{name}.weight".lstrip("."))
        for name in units.makers
    }
    queries, keys, size, width = _factors(flow, made, heads)
    vo = _value_units(call.read, made, heads, units.group.size)
    if width > 1:
        vo = {name: _paired(index, size * width) for name, index in vo.items()}
    qk = {name: _joined(queries[name], keys[name]) for name in made}
    return [
        _units(model, QK, units, qk, queries, width),
        _units(model, VO, units, vo, {}, width),
    ]


def _paired(index: Tensor, head: int) -> Tensor:
    """The units of two channels each, the first and the second half of a head, side by side."""
    half = head // 2
    return torch.where(index >= 0, index // head * half + index % half, -1)


def _factors(
    flow: Flow, made: dict[str, Tensor], heads: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], int, int]:
    """The unit of every output channel of each maker in queries and in keys.

    :return: also how many units a head has, and how many channels a unit. Two where positions
        rotate them; such units are the same in all heads
    """
    own = {id(leaf): name for name, leaf in made.items()}
    for factors in flow.products:
        leaves = [flow.leaves_of(factor) for factor in factors]
        if not all(leaves) or any(id(leaf) not in own for two in leaves for leaf in two):
            continue
        size = factors[0].shape[-1]
        alone, half = identity(size), max(size // 2, 1)
        for block in (alone, tiles(half, 2), repeats(half, 2)):
            found = []
            for factor, sources in zip(factors, leaves, strict=True):
                channels = reached(factor, sources, block[:size])
                if any(bool((channel == SEVERAL).any()) for channel in channels):
                    break
                units = {name: torch.full_like(heads[name], -1) for name in made}
                for leaf, channel in zip(sources, channels, strict=True):
                    name = own[id(leaf)]
                    whole = heads[name] * size + channel if block is alone else channel
                    units[name] = torch.where(channel >= 0, whole, -1)
                found.append(units)
            if len(found) == 2:
                width = 1 if block is alone else 2
                return found[0], found[1], size // width, width
        raise NoChannels("positions tie the channels of queries to more than one other")
    raise NoChannels("no product of queries and keys was seen")


def _value_units(
    read: Tensor, made: dict[str, Tensor], heads: dict[str, Tensor], count: int
) -> dict[str, Tensor]:
    """The unit of every output channel of each maker in values; -1 for what is no value."""
    per_head = read.shape[-1] // count
    for shared in range(1, per_head + 1):
        if per_head % shared:
            continue
        size = per_head // shared
        block = repeats(count, per_head) * size + torch.arange(read.shape[-1]) % size
        units = dict(zip(made, reached(read, list(made.values()), block), strict=True))
        units = {name: one.masked_fill(one == SEVERAL, -1) for name, one in units.items()}
        there = torch.cat([one[one >= 0] for one in units.values()])
        if torch.equal(there.sort().values, identity(count * size)):
            return units
    raise NoChannels("values are mixed before they are read")


def _joined(first: Tensor, second: Tensor) -> Tensor:
    return torch.where(first >= 0, first, second)


def _units(
    model: nn.Module,
    kind: str,
    units: HiddenUnits,
    made: dict[str, Tensor],
    gated: dict[str, Tensor],
    width: int,
) -> GatedUnits:
    members, size = [], int(max(one.max() for one in made.values())) + 1
    for name, index in made.items():
        layer = model.get_submodule(name)
        if bool((index >= 0).any()):
            for tensor, axes in tensor_axes(layer).items():
                members.append(Member(f"{name}.{tensor}", axes.index(OUTPUTS), index))
    sites = [
        Site(name, "output", index) for name, index in gated.items() if bool((index >= 0).any())
    ]
    if kind == VO:
        reader = model.get_submodule(units.reader)
        axes, inputs = tensor_axes(reader)["weight"], axis_size(reader, INPUTS)
        heads, per_head = units.group.size, inputs // units.group.size
        own = size // heads
        index = repeats(heads, per_head) * own + torch.arange(inputs) % own
        members.append(Member(f"{units.reader}.weight", axes.index(INPUTS), index))
        sites = [Site(units.reader, "input", index)]
    group = UnitGroup(f"{kind} of {units.reader}", size, members)
    layers = (*units.makers, units.reader)
    pools = 1 if kind == QK and width > 1 else units.group.size
    return GatedUnits(
        kind, units.reader, group, pools, tuple(sites), layers, width, (units.reader,)
    )


def rotated_together(
    model: nn.Module, found: Sequence[GatedUnits]
) -> tuple[list[GatedUnits], dict[str, str]]:
    """Join the channels of queries and keys that share the frequencies of rotary positions.

    All attention of a model takes these from the same buffers. So a pair goes everywhere or
    nowhere, and its frequency with it.

    :param found: of all kinds
    :return: those of the model, and what cannot go: key → why
    """
    rotated = [units for units in found if units.width > 1]
    others = [units for units in found if units.width == 1]
    skipped: dict[str, str] = {}
    for size in dict.fromkeys(units.group.size for units in rotated if units.kind == QK):
        same = [units for units in rotated if units.kind == QK and units.group.size == size]
        names = [units.name for units in same]
        values = [one for one in rotated if one.kind == VO and one.name in names]
        buffers = _frequencies(model, size)
        if not buffers:
            reason = "no buffer holds the frequencies of rotary positions, or they change"
            skipped |= {units.key: reason for units in (*same, *values)}
            continue
        members = [member for units in same for member in units.group.members]
        group = UnitGroup(f"rotated {QK} of {names[0]}", size, members)
        sites = tuple(site for units in same for site in units.sites)
        layers = tuple(layer for units in same for layer in units.layers)
        joined = replace(
            same[0], group=group, sites=sites, layers=layers, readers=tuple(names), buffers=buffers
        )
        others += [joined, *values]
    return others, skipped


def _frequencies(model: nn.Module, size: int) -> tuple[Member, ...]:
    """The buffers that hold a frequency for each pair of channels."""
    found = []
    for name, module in canonical_named_modules(model):
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.shape == (size,) and buffer.is_floating_point():
                if any(kind in str(vars(module).get("rope_type")) for kind in _CHANGING):
                    return ()
                found.append(Member(f"{name}.{key}".lstrip("."), 0, identity(size)))
    return tuple(found)


def _of_torch(units: HiddenUnits, layer: nn.MultiheadAttention) -> list[GatedUnits]:
    """The channels of an attention layer of torch, whose projections are one matrix or three."""
    name, own = units.makers[0], identity(_width(layer))
    size, members = len(own), {QK: [], VO: []}  # type: ignore[var-annotated]
    packed = layer.in_proj_weight is not None
    for place, (kind, part) in enumerate(((QK, "q"), (QK, "k"), (VO, "v"))):
        index = offset(own, place * size, 3 * size) if packed else own
        weight = "in_proj_weight" if packed else f"{part}_proj_weight"
        members[kind].append((weight, 0, index))
        if layer.in_proj_bias is not None:
            members[kind].append(("in_proj_bias", 0, offset(own, place * size, 3 * size)))
    members[VO].append(("out_proj.weight", 1, own))
    found = []
    for kind, slices in members.items():
        prefix = f"{name}." if name else ""
        joined: dict[tuple[str, int], Tensor] = {}
        for tensor, dim, index in slices:
            before = joined.get((tensor, dim))
            joined[tensor, dim] = index if before is None else _joined(before, index)
        parts = [Member(f"{prefix}{t}", dim, index) for (t, dim), index in joined.items()]
        group = UnitGroup(f"{kind} of {units.reader}", size, parts)
        site = Site(name, kind, own)
        found.append(
            GatedUnits(
                kind,
                units.reader,
                group,
                layer.num_heads,
                (site,),
                (name,),
                readers=(units.reader,),
            )
        )
    return found


def _width(layer: nn.MultiheadAttention) -> int:
    return int(layer.out_proj.weight.shape[1])
