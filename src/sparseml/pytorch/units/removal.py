"""Removing units from a model: everything is planned and checked before anything changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.entries import require_whole
from sparseml.pytorch.units.group import Member, UnitGroup, misfit
from sparseml.pytorch.units.layers import LayerCut, carry_out
from sparseml.pytorch.units.named import axis_index, groups_from_map
from sparseml.pytorch.units.slim_attention import SlimAttention
from sparseml.pytorch.utils.layer_kinds import axis_of
from sparseml.pytorch.utils.names import canonical_named_modules
from sparseml.pytorch.utils.params import NamedLayerParam, iter_layer_params
from sparseml.utils.text import did_you_mean, few

_LOGGER = logging.getLogger(__name__)

_RIGID = (nn.MultiheadAttention, nn.RNNBase)
"""Layers of torch whose forward pass cannot do with fewer units, but for slim attention."""


def remove(
    model: nn.Module,
    keeps: Mapping[UnitGroup, Tensor | Sequence[int]],
    optimizer: Any = None,
) -> int:
    """Remove units from ``model``, in place, with all of their slices.

    What belongs to a layer follows: its bias, batch statistics, size attributes and groups (see
    :func:`~sparseml.pytorch.units.layers.shrink_layer`); so do gradients and the optimizer's
    state. Parameters stay the same objects. Several groups may take slices along one dimension,
    as where a layer reads others side by side. Attributes of modules that are not torch's own
    (``num_heads``, ``hidden_size``) are left to the caller, who knows what they mean.

    The outputs are those of the model with the removed units at zero, if these add nothing then:
    normalisation across units (``LayerNorm``) sees fewer of them.

    :param keeps: for each group one bool per unit, True = keep, or the indices of those to keep
    :param optimizer: whose state follows
    :return: how many entries of parameters and buffers were removed
    :raises ValueError: when a group does not fit the model, when nothing of it would stay, when
        two groups contradict each other, and for layers that cannot do with fewer units
        (``MultiheadAttention``, recurrent ones); the model is unchanged then
    :raises RuntimeError: in the middle of distributed training (with an optimizer, and parameters
        inside ``DistributedDataParallel``), and for sharded parameters
    """
    # once for each layer that owns it
    owners = {owner.name: owner for owner in iter_layer_params(model)}
    for name, layer in canonical_named_modules(model):
        for key, buffer in layer.named_buffers(recurse=False):
            owner = NamedLayerParam(name, layer, key, buffer)  # type: ignore[arg-type]
            owners[owner.name] = owner
    rigid = {
        id(tensor): type(layer).__name__
        for layer in model.modules()
        if isinstance(layer, _RIGID) and not isinstance(layer, SlimAttention)
        for tensor in layer.parameters()
    }
    cuts: dict[int, LayerCut] = {}
    gates: dict[int, tuple[Tensor, Tensor]] = {}
    for group, keep in keeps.items():
        mask = group.as_mask(keep)
        for member in group.members:
            _plan_member(group, member, mask, owners, rigid, cuts)
        if group.gate is not None:
            group.check_gate()
            gates[id(group.gate)] = (group.gate, mask)
    _check_ties(owners.values(), cuts)
    removed = carry_out(list(cuts.values()), optimizer, gates.values())
    _LOGGER.debug("removed %d entries by %d groups in %d layers", removed, len(keeps), len(cuts))
    return removed


def _plan_member(
    group: UnitGroup,
    member: Member,
    mask: Tensor,
    owners: Mapping[str, NamedLayerParam],
    rigid: Mapping[int, str],
    cuts: dict[int, LayerCut],
) -> None:
    owner = owners.get(member.param)
    if owner is None:
        hint = did_you_mean(member.param, list(owners))
        raise misfit(group.name, member, "no such parameter", f"a name of the model's{hint}")
    require_whole(owner.name, owner.param)
    if id(owner.param) in rigid:
        kind = rigid[id(owner.param)]
        allowed = "attention or recurrence written with plain layers"
        raise misfit(group.name, member, f"a {kind}, which cannot do with fewer units", allowed)
    index = axis_index(group, member, owner)
    cut = cuts.setdefault(id(owner.layer), LayerCut(owner.layer, owner.layer_name))
    axis = axis_of(owner.layer, owner.param_name, member.dim)
    cut.keep(axis, mask[index] | (index < 0), claimed=index >= 0)


def _check_ties(owners: Iterable[NamedLayerParam], cuts: Mapping[int, LayerCut]) -> None:
    shrinking = {
        id(getattr(cut.layer, name)): f"{cut.name}.{name}"
        for cut in cuts.values()
        for name, keeps in cut.tensors().items()
        if keeps
    }
    for owner in owners:
        if id(owner.param) in shrinking and id(owner.layer) not in cuts:
            raise ValueError(
                f"{shrinking[id(owner.param)]} cannot be thinned: it is tied to {owner.name}, "
                "which belongs to no group"
            )


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
    return remove(module, {group: unpruned(group, params, strict) for group in groups}, optimizer)


def unpruned(group: UnitGroup, params: Mapping[str, Tensor], strict: bool) -> Tensor:
    """Return which units of a group are not zero throughout, bool ``[size]``; at least one.

    :param params: by name
    :param strict: demand that the group is pruned as one
    :raises ValueError: if it is not
    """
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
        pairs = zip(counting, zeros, strict=True)
        found = few((f"{member.param} in {int(zero.sum())}" for member, zero in pairs), 12)
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
