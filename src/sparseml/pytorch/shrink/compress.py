"""Removing pruned channels from a whole model, layers that depend on each other together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseml.pytorch.shrink.layers import LayerCut, carry_out
from sparseml.pytorch.shrink.parallel import require_whole
from sparseml.pytorch.utils.layer_kinds import axis_of, axis_size
from sparseml.pytorch.utils.names import canonical_name
from sparseml.pytorch.utils.params import NamedLayerParam, iter_layer_params
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = ["STRUCTURE_DIMS", "compress_strucure_pruned_module"]

_LOGGER = logging.getLogger(__name__)

STRUCTURE_DIMS = {"filter": 0, "channel": 1}
"""The dimension along which each type of structure lies."""


class _Slices(NamedTuple):
    """A parameter, seen as slices along one dimension."""

    param: NamedLayerParam
    dim: int

    @property
    def axis(self) -> str:
        return axis_of(self.param.layer, self.param.param_name, self.dim)

    @property
    def size(self) -> int:
        return axis_size(self.param.layer, self.axis)

    @property
    def counts(self) -> bool:
        """Whether its zeros say what is pruned; a depthwise convolution has but one channel."""
        return self.param.param.shape[self.dim] == self.size

    def zeros(self, units: int) -> Tensor:
        """Which of ``units`` are zero throughout; each stands for as many neighbouring slices."""
        slices = self.param.param.detach().transpose(0, self.dim).reshape(units, -1)
        return (slices == 0).all(dim=1).cpu()


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
    :param structure_type: ``filter`` (dimension 0) or ``channel`` (dimension 1)
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
    if structure_type not in STRUCTURE_DIMS:
        raise ValueError(
            f"structure_type must be {quoted_list(STRUCTURE_DIMS)}, found {structure_type!r}"
        )
    dim = STRUCTURE_DIMS[structure_type]
    params = {param.name: param for param in iter_layer_params(module)}
    cuts: dict[int, LayerCut] = {}
    for key, dependents in param_group_dependency_map.items():
        group = _slices(_split(key), dim, params, strict)
        followers = _slices(dependents, 1 - dim, params, strict)
        if group:
            _plan_group(key, group, followers, cuts, strict)
    _check_ties(params.values(), cuts)
    removed = carry_out(list(cuts.values()), optimizer)
    _LOGGER.info("removed %d entries by %ss in %d layers", removed, structure_type, len(cuts))
    return removed


def _split(key: str) -> list[str]:
    return [name.strip() for name in key.split(",") if name.strip()]


def _slices(
    names: Iterable[str], dim: int, params: Mapping[str, NamedLayerParam], strict: bool
) -> list[_Slices]:
    found = []
    for name in map(canonical_name, names):
        if name in params and params[name].param.ndim > 0:
            require_whole(name, params[name].param)
            found.append(_Slices(params[name], min(dim, params[name].param.ndim - 1)))
        elif strict:
            raise ValueError(
                f"param_group_dependency_map names {name!r}, which is no parameter (with at least "
                "one dimension) of the module"
                f"{did_you_mean(name, list(params))}"
            )
        else:
            _LOGGER.warning("%r is no parameter of the module; skipped while thinning", name)
    return found


def _plan_group(
    key: str,
    group: list[_Slices],
    followers: list[_Slices],
    cuts: dict[int, LayerCut],
    strict: bool,
) -> None:
    counting = [slices for slices in group if slices.counts]
    if not counting:
        raise ValueError(f"no parameter of the group {key!r} has units along the dimension to thin")
    units = min(slices.size for slices in counting)
    for slices in (*group, *followers):
        if slices.size % units:
            raise ValueError(
                f"{slices.param.name} has {slices.size} {slices.axis}, which is no multiple of the "
                f"{units} units of the group {key!r}"
            )
    pruned = _pruned_units(key, counting, units, strict)
    if bool(pruned.all()):
        _LOGGER.warning("all %d units of the group %r are zero; one of them stays", units, key)
        pruned[0] = False
    for slices in (*group, *followers):
        layer = slices.param.layer
        cut = cuts.setdefault(id(layer), LayerCut(layer, slices.param.layer_name))
        cut.keep(slices.axis, ~pruned.repeat_interleave(slices.size // units))


def _pruned_units(key: str, counting: list[_Slices], units: int, strict: bool) -> Tensor:
    zeros = [slices.zeros(units) for slices in counting]
    pruned = torch.stack(zeros).all(dim=0)
    # biases and the like are often zero for other reasons, so matrices decide
    matrices = [place for place, slices in enumerate(counting) if slices.param.param.ndim > 1]
    decisive = matrices or list(range(len(counting)))
    fewest = min(decisive, key=lambda place: int(zeros[place].sum()))
    unpruned = not bool(pruned.any()) and any(bool(zeros[place].any()) for place in decisive)
    if strict and (unpruned or not torch.equal(pruned, zeros[fewest])):
        found = ", ".join(
            f"{slices.param.name} in {int(zero.sum())}"
            for slices, zero in zip(counting, zeros, strict=True)
        )
        raise ValueError(
            f"the group {key!r} is inconsistent: of {units} units {int(pruned.sum())} are zero in "
            f"all of its parameters, but {found}; prune them as one group, or thin with "
            "strict=False"
        )
    return pruned


def _check_ties(params: Iterable[NamedLayerParam], cuts: Mapping[int, LayerCut]) -> None:
    shrinking = {
        id(getattr(cut.layer, name)): f"{cut.name}.{name}"
        for cut in cuts.values()
        for name, keeps in cut.tensors().items()
        if keeps
    }
    for param in params:
        if id(param.param) in shrinking and id(param.layer) not in cuts:
            raise ValueError(
                f"{shrinking[id(param.param)]} cannot be thinned: it is tied to {param.name}, "
                "which belongs to no group"
            )
