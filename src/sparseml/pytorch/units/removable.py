"""All that can be removed from a model, whatever kind: neurons, heads and channels."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.units.dependencies import dependency_groups
from sparseml.pytorch.units.group import UnitGroup
from sparseml.pytorch.units.hidden import HiddenUnits, hidden_units, remove_hidden
from sparseml.pytorch.units.origins import CALLED, note_removal
from sparseml.pytorch.units.probing import sample_inputs, with_values
from sparseml.pytorch.units.removal import remove
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.utils.text import few


@dataclass(frozen=True, eq=False)
class Removable:
    """Units of one place in a model.

    :param kind: ``neurons``, ``heads`` or ``channels``
    :param name: the layer that reads them, or the first that makes them (channels)
    :param group: their slices. Those that do not follow are masked while a unit is pruned: what
        makes it and what reads it, so that what comes of the masks is what comes of the removal
    :param readers: the parameters of the group whose slices read the units
    :param hidden: the neurons or heads, None for channels
    """

    kind: str
    name: str
    group: UnitGroup
    readers: frozenset[str]
    hidden: HiddenUnits | None = None


@dataclass(frozen=True)
class Removables:
    """What can be removed from a model.

    :param found: in the model's order of neurons and heads, then of channels
    :param skipped: place whose units cannot be removed -> why
    """

    found: tuple[Removable, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)


_TOLD = 4  # places that an error names

_known: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], Removables]] = (
    weakref.WeakKeyDictionary()
)


def removable_units(model: nn.Module, example_inputs: Any = None) -> Removables:
    """Find all units of ``model`` that can be removed, by running it on small inputs.

    Neurons and heads as :func:`~sparseml.pytorch.units.hidden.hidden_units` finds them, and
    channels of convolutional networks as
    :func:`~sparseml.pytorch.units.dependencies.dependency_groups` does. What was found is
    remembered as long as the model keeps its shapes. From the meta device a copy is run.

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; None for
        those of the last call, or of a model that says what it takes
    :raises ValueError: for a model that does not, and for one without such units
    """
    model = unwrap_module(model, root=True)
    sizes = tuple(param.numel() for param in model.parameters())
    known = _known.get(model)
    if known is None or known[0] != sizes:
        known = sizes, _found(with_values(model), example_inputs)
        _known[model] = known
    if not known[1].found:
        reasons = [f"{name}: {reason}" for name, reason in known[1].skipped.items()]
        why = few(reasons, _TOLD, between="; ") if reasons else ""
        raise ValueError(
            f"nothing can be removed from a {type(model).__name__}: no neurons, heads or channels "
            f"were found{' but ' + why if why else ''}"
        )
    return known[1]


def remove_units(
    model: nn.Module, keeps: Mapping[Removable, Tensor], optimizer: Any = None
) -> None:
    """Remove units of any kind, in place; arguments and errors are those of :func:`remove`."""
    lost = {units: keep for units, keep in keeps.items() if not bool(keep.all())}
    hidden = {units.hidden: keep for units, keep in lost.items() if units.hidden is not None}
    remove_hidden(model, hidden, optimizer)
    channels = {units.group: keep for units, keep in lost.items() if units.hidden is None}
    remove(model, channels, optimizer)
    for units, keep in lost.items():
        note_removal(model, f"{CALLED.get(units.kind, units.kind)} {units.name}", keep)


def has_channels(model: nn.Module) -> bool:
    """Whether channels are looked for: a single convolution only cuts an image into patches."""
    return sum(isinstance(layer, _ConvNd) for layer in model.modules()) > 1


def _found(model: nn.Module, example_inputs: Any) -> Removables:
    inputs = sample_inputs(model) if example_inputs is None else example_inputs
    hidden = hidden_units(model, inputs)
    found = [
        Removable(
            units.kind,
            units.reader,
            units.group,
            frozenset([units.group.members[-1].param]),
            units,
        )
        for units in hidden.found
    ]
    skipped = dict(hidden.skipped)
    if has_channels(model):
        try:
            channels = dependency_groups(model, inputs)
        except ImportError as error:
            return Removables(tuple(found), {**skipped, "channels": str(error)})
        taken = {(member.param, member.dim) for units in found for member in units.group.members}
        groups = channels.unit_groups(model)
        for names, group in zip(channels.groups, groups, strict=True):
            if not taken & {(member.param, member.dim) for member in group.members}:
                found.append(_channels(names.name, group, names.readers))
        skipped |= channels.skipped
    return Removables(tuple(found), skipped)


def _channels(name: str, group: UnitGroup, readers: Sequence[str]) -> Removable:
    members = [
        replace(member, follows=False) if member.param in readers else member
        for member in group.members
    ]
    whole = UnitGroup(f"channels of {name}", group.size, members)
    return Removable("channels", name, whole, frozenset(readers))
