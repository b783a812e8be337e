"""What must go together in a model (heads, neurons, channels), and removing it.

Pruning sets weights to zero; a model only gets smaller and faster on ordinary hardware when whole
units of zeros are cut out of its tensors. A :class:`UnitGroup` says which slices of which
parameters make up each unit, and :func:`remove` takes units out. :func:`positions` describes them
to the pruners, :func:`dependency_groups` finds the channels of a model that must go together,
:func:`hidden_units` its neurons and heads, and :func:`compress_strucure_pruned_module` removes what
is zero. :func:`sparseml.pytorch.shrink.shrink` does all of this in one call.
"""

from sparseml.pytorch.units.dependencies import ChannelGroup, DependencyGroups, dependency_groups
from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.units.hidden import (
    HiddenGroups,
    HiddenUnits,
    attention_heads,
    hidden_units,
    remove_hidden,
)
from sparseml.pytorch.units.index_maps import identity, offset, repeats, tiles
from sparseml.pytorch.units.layers import shrink_layer
from sparseml.pytorch.units.named import (
    STRUCTURE_DIMS,
    groups_from_indices,
    groups_from_map,
    positions,
)
from sparseml.pytorch.units.removal import compress_strucure_pruned_module, remove

__all__ = [
    "STRUCTURE_DIMS",
    "ChannelGroup",
    "DependencyGroups",
    "HiddenGroups",
    "HiddenUnits",
    "Member",
    "UnitGroup",
    "attention_heads",
    "compress_strucure_pruned_module",
    "dependency_groups",
    "groups_from_indices",
    "groups_from_map",
    "hidden_units",
    "identity",
    "offset",
    "positions",
    "remove",
    "remove_hidden",
    "repeats",
    "shrink_layer",
    "tiles",
]
