"""Taking gated units out of a model, with what its modules keep beside their tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.attributes import between, resize
from sparseml.pytorch.units.gated.kinds import FC, QK, STREAM, VO, GatedUnits
from sparseml.pytorch.units.gated.known import follow
from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.units.origins import note_removal
from sparseml.pytorch.units.removal import remove
from sparseml.pytorch.units.slim_attention import SlimAttention, make_slim
from sparseml.pytorch.utils.layer_kinds import OUTPUTS, tensor_axes

_SCALES = ("scale", "scaling")


def remove_gated(
    model: nn.Module, keeps: Mapping[GatedUnits, Tensor], optimizer: Any = None
) -> int:
    """Remove units whose gates are 0, so that the outputs stay as with these gates.

    Constants stay those of the whole model: the scale of scores and of embeddings. Of every head
    as many channels must stay, and as many of queries and keys as of values, as nearly all models
    keep but one size of a head.

    :param keeps: for each of the units one bool, True = keep
    :param optimizer: whose state follows
    :return: how many entries of parameters and buffers were removed
    :raises ValueError: for heads of different sizes, and as
        :func:`~sparseml.pytorch.units.removal.remove`; the model is unchanged then
    """
    changing = {units: units.group.as_mask(keep) for units, keep in keeps.items()}
    changing = {units: keep for units, keep in changing.items() if not bool(keep.all())}
    sizes = _head_sizes(changing, keeps)
    for layer in _attention_of_torch(model, changing):
        make_slim(model, layer)
    for units in changing:
        if units.kind == QK and units.fold:
            before = units.width * (units.group.size // units.pools)
            scale_queries(model, units, math.sqrt(sizes[units.name] / before))
    groups = {units.group: keep for units, keep in changing.items()}
    for units, keep in changing.items():
        if units.buffers:
            group = UnitGroup(f"buffers of {units.name}", units.group.size, units.buffers)
            groups[group] = keep
            _make_persistent(model, units.buffers)
    removed = remove(model, groups, optimizer)
    for units, keep in changing.items():
        note_removal(model, units.key, keep)
        if units.kind == STREAM:
            holders = _holders(model, units)
            resize(holders, STREAM, units.group.size, int(keep.sum()), {units.group.size})
        elif units.kind == FC:
            widths = {len(member.index) for member in units.group.members}
            resize(
                between(model, units.layers), "neurons", units.group.size, int(keep.sum()), widths
            )
        elif units.kind == VO and not isinstance(_maker(model, units), SlimAttention):
            before, after = units.width * (units.group.size // units.pools), sizes[units.name]
            widths = {before, *(len(member.index) for member in units.group.members)}
            modules = list(between(model, units.layers))
            resize(iter(modules), "channels", before, after, widths)
            if units.fold:
                _set_scales(modules, before, after)
    follow(model, changing)
    return removed


def _head_sizes(
    changing: Mapping[GatedUnits, Tensor], keeps: Mapping[GatedUnits, Tensor]
) -> dict[str, int]:
    """The size of a head that is left, by the name of its reader."""
    sizes: dict[str, int] = {}
    kinds: dict[str, set[str]] = {}
    for units, keep in changing.items():
        if units.kind not in (QK, VO):
            continue
        left = keep.reshape(units.pools, -1).sum(dim=1)
        if bool((left != left[0]).any()):
            raise ValueError(
                f"{units.key}: of every head as many channels must stay, found {left.tolist()}"
            )
        own = units.width * int(left[0])
        for name in units.readers:
            kinds.setdefault(name, set()).add(units.kind)
            if sizes.setdefault(name, own) != own:
                raise ValueError(
                    f"{name}: as many channels of queries and keys as of values must stay, "
                    f"found {sizes[name]} and {own}"
                )
    one_sided = [name for name, found in kinds.items() if found != {QK, VO}]
    if one_sided:
        raise ValueError(
            f"{one_sided[0]}: channels of queries and keys and those of values must go together, "
            f"found {', '.join(sorted(kinds[one_sided[0]]))} alone"
        )
    return sizes


def _attention_of_torch(
    model: nn.Module, changing: Mapping[GatedUnits, Tensor]
) -> list[nn.MultiheadAttention]:
    touched = {id(model.get_parameter(m.param)) for units in changing for m in units.group.members}
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.MultiheadAttention)
        and not isinstance(layer, SlimAttention)
        and any(id(param) in touched for param in layer.parameters())
    ]


def _maker(model: nn.Module, units: GatedUnits) -> nn.Module:
    return model.get_submodule(units.layers[0])


@torch.no_grad()
def scale_queries(model: nn.Module, units: GatedUnits, factor: float) -> None:
    """Multiply the weights and biases that make queries.

    :param units: channels of queries and keys, in layers that are not torch's own attention
    """
    for site in units.sites:
        layer = model.get_submodule(site.layer)
        for name, axes in tensor_axes(layer).items():
            rows = getattr(layer, name).movedim(axes.index(OUTPUTS), 0)
            rows[site.index.to(rows.device) >= 0] *= factor


def _make_persistent(model: nn.Module, buffers: Sequence[Member]) -> None:
    """Let state dicts hold buffers that no configuration tells any more."""
    for member in buffers:
        owner, _, key = member.param.rpartition(".")
        model.get_submodule(owner)._non_persistent_buffers_set.discard(key)


def scales_of(model: nn.Module) -> dict[str, float]:
    """Return the scales of scores that modules keep as attributes: name of the module → scale."""
    return {
        name: vars(module)[key]
        for name, module in model.named_modules()
        for key in _SCALES
        if isinstance(vars(module).get(key), float)
    }


def _set_scales(modules: list[nn.Module], before: int, after: int) -> None:
    for module in modules:
        for name in _SCALES:
            value = vars(module).get(name)
            if isinstance(value, float) and math.isclose(value, before**-0.5, rel_tol=1e-6):
                setattr(module, name, after**-0.5)


def _holders(model: nn.Module, units: GatedUnits) -> Iterator[nn.Module]:
    """The modules that hold layers of a stream."""
    paths = [member.param.split(".") for member in units.group.members]
    names = {".".join(path[:end]) for path in paths for end in range(len(path) - 1)}
    return (model.get_submodule(name) for name in sorted(names))
