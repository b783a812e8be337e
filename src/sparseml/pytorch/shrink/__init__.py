"""Making pruned models physically smaller.

Pruning sets weights to zero; a model only gets smaller and faster on ordinary hardware when whole
channels of zeros are cut out of its tensors. :func:`shrink_layer` does so for one layer,
:func:`compress_strucure_pruned_module` for layers that depend on each other, and
:func:`dependency_groups` finds out which these are.
"""

from sparseml.pytorch.shrink.compress import STRUCTURE_DIMS, compress_strucure_pruned_module
from sparseml.pytorch.shrink.groups import DependencyGroups, dependency_groups
from sparseml.pytorch.shrink.layers import shrink_layer
from sparseml.pytorch.shrink.trace import ChannelGroup

__all__ = [
    "STRUCTURE_DIMS",
    "ChannelGroup",
    "DependencyGroups",
    "compress_strucure_pruned_module",
    "dependency_groups",
    "shrink_layer",
]
