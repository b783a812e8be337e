"""Old path of the names of :mod:`sparseml.pytorch.units` that were here first."""

from sparseml.pytorch.units import (
    STRUCTURE_DIMS,
    ChannelGroup,
    DependencyGroups,
    compress_strucure_pruned_module,
    dependency_groups,
    shrink_layer,
)

__all__ = [
    "STRUCTURE_DIMS",
    "ChannelGroup",
    "DependencyGroups",
    "compress_strucure_pruned_module",
    "dependency_groups",
    "shrink_layer",
]
