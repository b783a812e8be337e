"""Units that add nothing to a model, or always the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.cutting import cut_run, random_outputs
from sparseml.pytorch.units.hidden import HiddenUnits
from sparseml.pytorch.units.slim_attention import fixed_values
from sparseml.pytorch.utils.layer_kinds import to_out_in

# of what a softmax rounds when it takes the mean of equal numbers
_ROUNDINGS = 16


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
    read: dict[str, list[Tensor]] = {}
    biases: dict[str, Tensor] = {}
    for units in places:
        for name in units.makers:
            maker = model.get_submodule(name)
            if isinstance(maker, nn.MultiheadAttention):
                read[units.reader] = [fixed_values(maker)[None]]
            elif (bias := _fixed_outputs(maker)) is not None:
                biases[name] = bias
    if biases:
        chance = random_outputs()

        def make_up(name: str, layer: nn.Module, output: Tensor) -> Tensor:
            made = chance(name, layer, output)
            fixed = biases.get(name)
            return made if fixed is None else torch.where(fixed.isnan(), made, fixed)

        readers = {units.reader for units in places if biases.keys() & set(units.makers)}
        for call in cut_run(model, example_inputs, make_up)[0]:
            if call.layer in readers:
                read.setdefault(call.layer, []).append(call.read.flatten(0, -2))
    return [_contribution(model, units, read) for units in places]


def _fixed_outputs(layer: nn.Module) -> Tensor | None:
    """The outputs that do not depend on inputs, nan for the others; None if there are none."""
    weight: Tensor = to_out_in(layer, "weight", layer.weight)  # type: ignore[arg-type]
    fixed = (weight == 0).all(dim=1)
    bias = layer.bias if isinstance(layer.bias, Tensor) else torch.zeros_like(weight[:, 0])
    return torch.where(fixed, bias, torch.nan) if bool(fixed.any()) else None


def _contribution(
    model: nn.Module, units: HiddenUnits, read: dict[str, list[Tensor]]
) -> Contribution:
    reader = model.get_submodule(units.reader)
    weight = to_out_in(reader, "weight", reader.weight).double()  # type: ignore[arg-type]
    nothing = (weight == 0).all(dim=0)
    constant, value = torch.zeros_like(nothing), torch.zeros_like(weight[0])
    if units.reader in read:
        seen = torch.cat(read[units.reader])
        low, high = seen.amin(dim=0), seen.amax(dim=0)
        room = _ROUNDINGS * torch.finfo(seen.dtype).eps
        constant = (high - low <= room * torch.maximum(low.abs(), high.abs())) & ~nothing
        value = torch.where(constant, seen.double().mean(dim=0), 0.0)
    size = units.group.size
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
