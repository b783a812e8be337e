"""Removing what is zero from a whole model, layers that depend on each other together."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.group import Member, UnitGroup
from sparseml.pytorch.units.named import groups_from_map
from sparseml.pytorch.units.removal import remove
from sparseml.pytorch.utils.params import iter_layer_params

__all__ = ["compress_strucure_pruned_module"]

_LOGGER = logging.getLogger(__name__)


def compress_strucure_pruned_module(
    module: nn.Module,
    param_group_dependency_map: Mapping[str, Sequence[str]],
    structure_type: str = "filter",
    optimizer: Any = None,
    strict: bool = True,
) -> int:
    """Remove the filters or channels that are entirely zero, so that the model gets smaller.

    Gradients, the optimizer's state, biases, batch statistics and size attributes follow;
    parameters stay the same objects. Where a dimension is a multiple of the group's smallest (a
    convolution that is flattened into a linear layer), each unit stands for that many neighbours.
    The outputs stay the same only if what is removed contributed nothing: for ``filter`` that
    means that biases and normalisation after the layer are in the group too, and so are zero.

    :param param_group_dependency_map: key: comma separated names of the parameters that are zero
        in the same units and lose them along the structure's dimension (vectors along their only
        one); value: names of the parameters whose opposite dimension follows
    :param structure_type: ``filter`` (outputs, dimension 0) or ``channel`` (inputs, dimension 1)
    :param optimizer: whose state follows
    :param strict: demand that all names exist, and that each group is pruned as one: what is zero
        in the matrix with the fewest zeros is zero in all (more zeros are common, as in dead units
        and fresh biases). Otherwise unknown names are skipped, and what is zero throughout goes
    :return: how many entries of parameters and buffers were removed
    :raises ValueError: for another structure type, and when the groups do not fit the model; the
        model is unchanged then
    :raises RuntimeError: in the middle of distributed training (with an optimizer, and parameters
        inside ``DistributedDataParallel``), and for sharded parameters
    """
    params = {param.name: param.param for param in iter_layer_params(module)}
    groups = groups_from_map(module, param_group_dependency_map, structure_type, strict)
    return remove(module, {group: _unpruned(group, params, strict) for group in groups}, optimizer)


def _unpruned(group: UnitGroup, params: Mapping[str, Tensor], strict: bool) -> Tensor:
    """Which units of a group are not zero throughout, bool ``[size]``; at least one."""
    # where a grouped convolution's map speaks of the channels of all groups, zeros say nothing
    counting = [
        member
        for member in group.members
        if not member.follows and params[member.param].shape[member.dim] == len(member.index)
    ]
    zeros = [_zeros(group, member, params[member.param]) for member in counting]
    pruned = torch.stack(zeros).all(dim=0)
    # biases and the like are often zero for other reasons, so matrices decide
    matrices = [place for place, member in enumerate(counting) if params[member.param].ndim > 1]
    decisive = matrices or list(range(len(counting)))
    fewest = min(decisive, key=lambda place: int(zeros[place].sum()))
    unpruned = not bool(pruned.any()) and any(bool(zeros[place].any()) for place in decisive)
    if strict and (unpruned or not torch.equal(pruned, zeros[fewest])):
        found = ", ".join(
            f"{member.param} in {int(zero.sum())}"
            for member, zero in zip(counting, zeros, strict=True)
        )
        raise ValueError(
            f"the group {group.name!r} is inconsistent: of {group.size} units {int(pruned.sum())} "
            f"are zero in all of its parameters, but {found}; prune them as one group, or thin "
            "with strict=False"
        )
    if bool(pruned.all()):
        _LOGGER.warning(
            "all %d units of the group %r are zero; one of them stays", group.size, group.name
        )
        pruned[0] = False
    return ~pruned


def _zeros(group: UnitGroup, member: Member, param: Tensor) -> Tensor:
    """Which units are zero in all of their slices of ``param``."""
    slices = param.detach().movedim(member.dim, 0).reshape(len(member.index), -1)
    used = (slices != 0).any(dim=1).cpu() & (member.index >= 0)
    found = torch.ones(group.size, dtype=torch.bool)
    found[member.index[used]] = False
    return found
