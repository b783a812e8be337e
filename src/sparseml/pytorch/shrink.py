"""Making a pruned model smaller: what is zero is removed, and the model computes the same.

The names of :mod:`sparseml.pytorch.units` that were here first are still found here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from sparseml.pytorch.units import (
    STRUCTURE_DIMS,
    ChannelGroup,
    DependencyGroups,
    compress_strucure_pruned_module,
    dependency_groups,
    shrink_layer,
)
from sparseml.pytorch.units.contributions import contributions, fold
from sparseml.pytorch.units.hidden import HiddenUnits, hidden_units, remove_hidden
from sparseml.pytorch.units.loaded import load_shrunk
from sparseml.pytorch.units.origins import CALLED, note_removal
from sparseml.pytorch.units.probing import sample_inputs
from sparseml.pytorch.units.removable import has_channels
from sparseml.pytorch.units.removal import remove, unpruned
from sparseml.pytorch.units.saved import fill_shrunk, save_shrunk
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import iter_layer_params, parameter_count

__all__ = [
    "STRUCTURE_DIMS",
    "ChannelGroup",
    "DependencyGroups",
    "Place",
    "Shrinkage",
    "compress_strucure_pruned_module",
    "dependency_groups",
    "fill_shrunk",
    "load_shrunk",
    "save_shrunk",
    "shrink",
    "shrink_layer",
]

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """What became of the units of one place.

    :param name: of the layer that reads them, or of the first that makes them (channels)
    :param kind: ``neurons``, ``heads`` or ``channels``
    :param before: how many there were
    :param after: how many are left
    """

    name: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True)
class Shrinkage:
    """What :func:`shrink` did.

    :param places: in the model's order, those that lost nothing too
    :param parameters_before: entries of all parameters, tied ones once
    :param parameters_after: the same of the smaller model
    :param skipped: place that cannot lose units -> why
    """

    places: tuple[Place, ...]
    parameters_before: int
    parameters_after: int
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        told = []
        for kind in dict.fromkeys(place.kind for place in self.places):
            before = sum(place.before for place in self.places if place.kind == kind)
            after = sum(place.after for place in self.places if place.kind == kind)
            told.append(f"{after} of {before} {kind}")
        kept = ", ".join([*told, f"{self.parameters_after} of {self.parameters_before} parameters"])
        return f"kept {kept}"


def shrink(
    model: nn.Module,
    example_inputs: Any = None,
    round_to: int = 1,
    optimizer: Any = None,
    check: bool = True,
) -> Shrinkage:
    """Remove from ``model``, in place, the neurons, heads and channels that add nothing to it.

    In Transformers (found without names, see :func:`~sparseml.pytorch.units.hidden_units`) these
    are neurons and heads whose columns in the second matrix are zero, and those whose rows in the
    first are: what they add is then always the same, and goes into the bias of the second. In
    convolutional networks they are the channels that
    :func:`~sparseml.pytorch.units.dependency_groups` finds, zero with bias and normalisation. The
    outputs in eval mode stay the same up to rounding. One unit stays in every place.

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; None
        where the model says what it takes
    :param round_to: keep a multiple of so many units in every place that has more, by leaving in
        the first of those that could go
    :param optimizer: whose state follows
    :param check: try the removal on a copy first, and leave out what would change or break the
        model (see ``skipped`` of the result)
    :raises ValueError: for ``round_to`` below 1, and a model that does not say what it takes
    :raises RuntimeError: in the middle of distributed training, and for sharded parameters
    """
    if round_to < 1:
        raise ValueError(f"round_to must be at least 1, found {round_to}")
    model = unwrap_module(model, root=True)
    inputs = sample_inputs(model) if example_inputs is None else example_inputs
    before = parameter_count(model)
    hidden, skipped = _shrink_hidden(model, inputs, round_to, optimizer, check)
    channels, others = _shrink_channels(model, inputs, round_to, optimizer, check)
    places = (*hidden, *channels)
    done = Shrinkage(places, before, parameter_count(model), {**skipped, **others})
    _LOGGER.info("%s", done)
    return done


def _shrink_hidden(
    model: nn.Module, inputs: Any, round_to: int, optimizer: Any, check: bool
) -> tuple[list[Place], dict[str, str]]:
    groups = hidden_units(model, inputs, check)
    found = contributions(model, groups.found, inputs)
    keeps: dict[HiddenUnits, Tensor] = {}
    for units, contribution in zip(groups.found, found, strict=True):
        keeps[units] = rounded(~contribution.removable, round_to)
        fold(model, units, contribution.constant[~keeps[units]].sum(dim=0))
    going = {units: keep for units, keep in keeps.items() if not keep.all()}
    remove_hidden(model, going, optimizer)
    for units, keep in going.items():
        note_removal(model, f"{CALLED.get(units.kind, units.kind)} {units.reader}", keep)
    places = [
        Place(units.reader, units.kind, len(keep), int(keep.sum())) for units, keep in keeps.items()
    ]
    return places, dict(groups.skipped)


def _shrink_channels(
    model: nn.Module, inputs: Any, round_to: int, optimizer: Any, check: bool
) -> tuple[list[Place], Mapping[str, str]]:
    if not has_channels(model):
        return [], {}
    try:
        found = dependency_groups(model, inputs, check=check)
    except ImportError as error:
        return [], {"channels": str(error)}
    params = {param.name: param.param for param in iter_layer_params(model)}
    made = found.unit_groups(model)
    # what nobody reads may go as well as what is always zero
    read = replace(found, structure_type="channel").unit_groups(model)
    keeps = {}
    for makers, readers in zip(made, read, strict=True):
        kept = unpruned(makers, params, strict=False) & unpruned(readers, params, strict=False)
        keeps[makers] = rounded(kept, round_to)
    going = {group: keep for group, keep in keeps.items() if not keep.all()}
    remove(model, going, optimizer)
    for group, kept in zip(found.groups, keeps.values(), strict=True):
        if not kept.all():
            note_removal(model, f"channels {group.name}", kept)
    pairs = zip(found.groups, keeps.values(), strict=True)
    places = [Place(group.name, "channels", len(kept), int(kept.sum())) for group, kept in pairs]
    return places, found.skipped


def rounded(keep: Tensor, round_to: int) -> Tensor:
    """Return ``keep`` with the first of the others too, up to a multiple of ``round_to``.

    At least one unit is kept, and at most all.
    """
    wanted = max(-(-int(keep.sum()) // round_to), 1) * round_to
    more = (~keep).nonzero()[: max(wanted - int(keep.sum()), 0), 0]
    return keep.index_fill(0, more, True)
