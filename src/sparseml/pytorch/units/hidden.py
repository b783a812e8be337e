"""The neurons and heads of a model: what lies between the layers that make them and one that reads
them, and is seen by nobody else."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.attributes import between, resize
from sparseml.pytorch.units.cutting import Call, blocks, cut_run, is_linear, random_outputs, sources
from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.units.index_maps import repeats
from sparseml.pytorch.units.probing import few_samples, removal_fault, sample_inputs
from sparseml.pytorch.units.removal import remove
from sparseml.pytorch.units.slim_attention import SlimAttention, fused_heads, make_slim
from sparseml.pytorch.utils.layer_kinds import INPUTS, OUTPUTS, tensor_axes
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module

_LOGGER = logging.getLogger(__name__)

# query, key and value, positions of two kinds, gates; what has more is a residual stream
_MOST_MAKERS = 8


@dataclass(frozen=True, eq=False)
class HiddenUnits:
    """Neurons or heads of one place in a model.

    :param kind: ``neurons``, each a single input of the reader, or ``heads``, each several
    :param makers: the layers whose outputs they are made of: the first of a feed-forward block (or
        gate and value), or query, key and value. With grouped queries a head is one of the keys,
        with all of its queries
    :param reader: the layer that reads them
    :param group: the slices of weights that are zero in a pruned unit, and of biases that follow
    """

    kind: str
    makers: tuple[str, ...]
    reader: str
    group: UnitGroup


@dataclass(frozen=True)
class HiddenGroups:
    """The hidden units of a model.

    :param found: in the model's order
    :param skipped: reader of units that cannot be removed -> why
    """

    found: tuple[HiddenUnits, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)


def hidden_units(model: nn.Module, example_inputs: Any = None, check: bool = True) -> HiddenGroups:
    """Find neurons and heads by running ``model`` once, without a look at names.

    The outputs of each linear layer are made up in this run, and followed to where they are read
    (see :mod:`~sparseml.pytorch.units.cutting`): neurons stay by themselves, heads by each other,
    however queries, keys and values are laid out. ``nn.Linear`` and Hugging Face's ``Conv1D`` are
    looked at. The model itself is not changed.

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, of a few
        positions; None where the model says what it takes
    :param check: try the removal on a copy, and leave out what changes the outputs or breaks the
        forward pass (sizes written into the code)
    :raises ValueError: for a model that does not say what it takes
    """
    model = unwrap_module(model, root=True)
    given = sample_inputs(model) if example_inputs is None else example_inputs
    inputs = few_samples(model, given)
    found, skipped = _traced(model, inputs)
    for name, layer in canonical_named_modules(model):
        if isinstance(layer, nn.MultiheadAttention):
            reader = _join(name, "out_proj")
            try:
                group = fused_heads(name, layer)
            except ValueError as error:
                skipped[reader] = str(error)
            else:
                found.append(HiddenUnits("heads", (name,), reader, group))
    if check and found and _fault(model, found, inputs):
        for units in found:
            fault = _fault(model, [units], inputs)
            if fault:
                skipped[units.reader] = fault
        found = [units for units in found if units.reader not in skipped]
    for name, reason in skipped.items():
        _LOGGER.debug("what %s reads cannot be removed: %s", name, reason)
    return HiddenGroups(tuple(found), skipped)


def attention_heads(model: nn.Module, example_inputs: Any = None) -> list[UnitGroup]:
    """Return the heads of every attention in ``model``, one group for each.

    The members that do not follow are the weights that are zero in a pruned head: query, key and
    value along their outputs, or the layer in which they are fused, and the output projection
    along its inputs. With grouped queries a unit is a head of keys, with all of its queries.
    Attention whose heads may be zeroed but not removed (their number is written elsewhere too) is
    among them.

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; None
        where the model says what it takes, as those of transformers and timm
    :raises ValueError: for a model without attention heads, or that does not say what it takes
    """
    found = hidden_units(model, example_inputs, check=False).found
    heads = [units.group for units in found if units.kind == "heads"]
    if not heads:
        raise ValueError(
            f"no attention heads were found in a {type(model).__name__}; known is attention of "
            "two heads or more between linear layers, and nn.MultiheadAttention"
        )
    return heads


def _fault(model: nn.Module, found: list[HiddenUnits], inputs: Any) -> str:
    def removal(probe: nn.Module, keeps: Mapping[UnitGroup, Tensor]) -> None:
        remove_hidden(probe, {units: keeps[units.group] for units in found})

    return removal_fault(model, lambda probe: [units.group for units in found], removal, inputs)


def remove_hidden(
    model: nn.Module, keeps: Mapping[HiddenUnits, Tensor], optimizer: Any = None
) -> int:
    """Remove neurons and heads, and set the numbers of heads and widths that modules keep.

    :param keeps: for each of the units one bool, True = keep
    :param optimizer: whose state follows
    :return: how many entries of parameters and buffers were removed
    :raises ValueError: as :func:`~sparseml.pytorch.units.removal.remove`
    """
    for units in keeps:
        maker = model.get_submodule(units.makers[0])
        if isinstance(maker, nn.MultiheadAttention):
            make_slim(model, maker)
    removed = remove(model, {units.group: keep for units, keep in keeps.items()}, optimizer)
    for units, keep in keeps.items():
        maker = model.get_submodule(units.makers[0])
        if isinstance(maker, SlimAttention):
            maker.num_heads = int(keep.sum())
            continue
        modules = between(model, (*units.makers, units.reader))
        widths = {len(member.index) for member in units.group.members}
        resize(modules, units.kind, units.group.size, int(keep.sum()), widths)
    return removed


def _traced(model: nn.Module, inputs: Any) -> tuple[list[HiddenUnits], dict[str, str]]:
    calls, outputs = cut_run(model, inputs, random_outputs(), gradients=True)
    behind = [sources([call.read], calls) for call in calls]
    returned = {call.layer for call in sources(outputs, calls)}
    readers: dict[str, set[str]] = {}
    for call, made_by in zip(calls, behind, strict=True):
        for maker in made_by:
            readers.setdefault(maker.layer, set()).add(call.layer)
    runs = Counter(call.layer for call in calls)
    found: dict[str, HiddenUnits] = {}
    skipped: dict[str, str] = {}
    for call, made_by in zip(calls, behind, strict=True):
        if not 0 < len(made_by) <= _MOST_MAKERS or not _are_linear(model, [call, *made_by]):
            continue
        size, maps = blocks(call.read, [maker.output for maker in made_by])
        if size == 1:
            continue
        makers = [maker.layer for maker in made_by]
        if any(readers[maker] != {call.layer} for maker in makers):
            continue
        if returned & set(makers):
            skipped[call.layer] = "they are outputs of the model"
        elif len(set(makers)) < len(makers) or any(runs[m] > runs[call.layer] for m in makers):
            skipped[call.layer] = "a layer makes them in several runs"
        elif any(not _is_even(unit, size) for unit in maps):
            skipped[call.layer] = "they have different numbers of channels"
        else:
            units = _units(model, call.layer, size, call.read.shape[-1], makers, maps)
            before = found.setdefault(call.layer, units)
            if not _are_same(before, units):
                skipped[call.layer] = "they are others in each run of the layer"
    kept = [units for units in found.values() if units.reader not in skipped]
    return kept, skipped


def _are_linear(model: nn.Module, calls: list[Call]) -> bool:
    return all(is_linear(model.get_submodule(call.layer)) for call in calls)


def _is_even(unit: Tensor, size: int) -> bool:
    counts = torch.bincount(unit[unit >= 0], minlength=size)
    return bool((counts == counts[0]).all()) and bool(counts[0] > 0)


def _are_same(one: HiddenUnits, other: HiddenUnits) -> bool:
    pairs = zip(one.group.members, other.group.members, strict=False)
    return one.makers == other.makers and all(torch.equal(a.index, b.index) for a, b in pairs)


def _units(
    model: nn.Module, reader: str, size: int, width: int, makers: list[str], maps: list[Tensor]
) -> HiddenUnits:
    members = []
    for name, index in zip(makers, maps, strict=True):
        layer = model.get_submodule(name)
        for tensor, axes in tensor_axes(layer).items():
            follows = tensor != "weight"
            members.append(Member(_join(name, tensor), axes.index(OUTPUTS), index, follows))
    dim = tensor_axes(model.get_submodule(reader))["weight"].index(INPUTS)
    members.append(Member(_join(reader, "weight"), dim, repeats(size, width // size)))
    kind = "neurons" if size == width else "heads"
    return HiddenUnits(kind, tuple(makers), reader, UnitGroup(f"{kind} of {reader}", size, members))


def _join(layer: str, tensor: str) -> str:
    return f"{layer}.{tensor}" if layer else tensor
