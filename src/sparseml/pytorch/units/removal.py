"""Removing units from a model: everything is planned and checked before anything changes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sparseml.pytorch.units.entries import require_whole
from sparseml.pytorch.units.group import Member, UnitGroup, misfit
from sparseml.pytorch.units.layers import LayerCut, carry_out
from sparseml.pytorch.units.positions import axis_index
from sparseml.pytorch.utils.layer_kinds import axis_of
from sparseml.pytorch.utils.names import canonical_named_modules
from sparseml.pytorch.utils.params import NamedLayerParam, iter_layer_params
from sparseml.utils.text import did_you_mean

__all__ = ["remove"]

_LOGGER = logging.getLogger(__name__)

_RIGID = (nn.MultiheadAttention, nn.RNNBase)
"""Layers of torch whose forward pass cannot do with fewer units."""


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
        if isinstance(layer, _RIGID)
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
    _LOGGER.info("removed %d entries by %d groups in %d layers", removed, len(keeps), len(cuts))
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
