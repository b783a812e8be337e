"""Units that add nothing to a model, or always the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.cutting import MadeUp, cut_run, random_outputs
from sparseml.pytorch.units.hidden import HiddenUnits
from sparseml.pytorch.units.slim_attention import fixed_values
from sparseml.pytorch.utils.layer_kinds import to_out_in

# of what a softmax rounds when it takes the mean of equal numbers
_ROUNDINGS = 16
# small positive outputs leave no activation dead, large ones of both signs none saturated; two of
# each, as there may be but one position
_CHANCES = tuple((seed, wide) for wide in (False, True) for seed in (0, 1))


class Contribution(NamedTuple):
    """What the units of one place add to the reader's outputs.

    :param removable: bool ``[units]``: those that add the same whatever goes into the model, and
        whose reader has a bias that can take it
    :param constant: float64 ``[units, outputs]``: what each of those adds
    """

    removable: Tensor
    constant: Tensor


@torch.no_grad()
def contributions(
    model: nn.Module, places: Iterable[HiddenUnits], example_inputs: Any
) -> list[Contribution]:
    """Find the units that may go, of each place.

    A unit adds nothing when the reader's columns are zero. It always adds the same when the rows
    of its makers are, as far as what comes between makes a constant of that: ``act(bias)`` of a
    neuron, nothing where a gate or its value is off, the bias of a head's values. That is seen by
    running the model with such outputs at their biases and all others made up.
    """
    places = list(places)
    fixed: dict[str, Tensor] = {}
    read: dict[str, list[Tensor]] = {}
    for units in places:
        for name in units.makers:
            layer = model.get_submodule(name)
            if isinstance(layer, nn.MultiheadAttention):
                read[units.reader] = [fixed_values(layer)[None]]
            else:
                fixed[name] = _fixed_outputs(layer)
    fixed = {name: values for name, values in fixed.items() if not bool(values.isnan().all())}
    for seed, wide in _CHANCES if fixed else ():
        chance = random_outputs(seed, wide)

        def make_up(name: str, layer: nn.Module, output: Tensor, chance: MadeUp = chance) -> Tensor:
            made, values = chance(name, layer, output), fixed.get(name)
            return made if values is None else torch.where(values.isnan(), made, values)

        for call in cut_run(model, example_inputs, make_up)[0]:
            rows = call.read.reshape(-1, call.read.shape[-1])
            read.setdefault(call.layer, []).append(rows)
    return [
        _contribution(model, units, _decided(units, fixed), read.get(units.reader, []))
        for units in places
    ]


def _fixed_outputs(layer: nn.Module) -> Tensor:
    """The outputs that do not depend on inputs, ``[outputs]``, nan for the others."""
    weight: Tensor = to_out_in(layer, "weight", layer.weight)  # type: ignore[arg-type]
    bias = layer.bias if isinstance(layer.bias, Tensor) else torch.zeros_like(weight[:, 0])
    return torch.where((weight == 0).all(dim=1), bias, torch.nan)


def _decided(units: HiddenUnits, fixed: Mapping[str, Tensor]) -> Tensor:
    """Which units have a fixed output among what they are made of, bool ``[units]``."""
    found = torch.zeros(units.group.size, dtype=torch.bool)
    for member in units.group.members:
        layer, _, tensor = member.param.rpartition(".")
        if tensor == "weight" and layer in fixed and layer in units.makers:
            known = ~fixed[layer].isnan().cpu() & (member.index >= 0)
            found[member.index[known]] = True
        elif tensor == "in_proj_weight" or tensor == "v_proj_weight":  # told by its values alone
            found[:] = True
    return found


def _contribution(
    model: nn.Module, units: HiddenUnits, decided: Tensor, read: list[Tensor]
) -> Contribution:
    reader, size = model.get_submodule(units.reader), units.group.size
    weight = to_out_in(reader, "weight", reader.weight).double()  # type: ignore[arg-type]
    nothing = (weight == 0).all(dim=0)
    constant, value = torch.zeros_like(nothing), torch.zeros_like(weight[0])
    if read and bool(decided.any()):
        seen = torch.cat(read)
        low, high = seen.amin(dim=0), seen.amax(dim=0)
        room = _ROUNDINGS * torch.finfo(seen.dtype).eps
        constant = high - low <= room * torch.maximum(low.abs(), high.abs())
        constant &= decided.to(constant.device).repeat_interleave(len(constant) // size) & ~nothing
        value = torch.where(constant, seen.double().mean(dim=0), 0.0)
    removable = (nothing | constant).reshape(size, -1).all(dim=1)
    adds = (weight * value).reshape(len(weight), size, -1).sum(dim=2).T
    if reader.bias is None:
        removable &= (adds == 0).all(dim=1)
    return Contribution(removable.cpu(), adds)


@torch.no_grad()
def fold(model: nn.Module, units: HiddenUnits, constant: Tensor) -> None:
    """Add what removed units did to the bias of their reader.

    :param constant: float64 ``[outputs]``
    """
    bias = model.get_submodule(units.reader).bias
    if isinstance(bias, Tensor) and bool((constant != 0).any()):
        bias.copy_(bias.double() + constant)
