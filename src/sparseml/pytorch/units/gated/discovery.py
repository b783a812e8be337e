"""The gated units of a model: residual streams, channels of heads, and neurons."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.gated.channels import NoChannels, head_channels
from sparseml.pytorch.units.gated.flow import flow_of
from sparseml.pytorch.units.gated.gates import Gates
from sparseml.pytorch.units.gated.kinds import FC, KINDS, QK, VO, GatedUnits, Site
from sparseml.pytorch.units.gated.removal import remove_gated
from sparseml.pytorch.units.gated.streams import Streams
from sparseml.pytorch.units.hidden import HiddenUnits, hidden_units
from sparseml.pytorch.units.probing import call_model, few_samples, sample_inputs
from sparseml.pytorch.utils.names import unwrap_module

_LOGGER = logging.getLogger(__name__)
_TOLERANCE = 1e-4
_SHARP = 2.0


@dataclass(frozen=True)
class GatedGroups:
    """The gated units of a model.

    :param found: in the order of the kinds, and of the model
    :param skipped: key of units that cannot be removed -> why
    """

    found: tuple[GatedUnits, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    def of(self, *kinds: str) -> tuple[GatedUnits, ...]:
        """Return the units of some kinds."""
        return tuple(units for units in self.found if units.kind in kinds)


def gated_units(model: nn.Module, example_inputs: Any = None, check: bool = True) -> GatedGroups:
    """Find the units of a Transformer that can fade away and be removed, without a look at names.

    A stream is what norms read; channels of heads and neurons are those of blocks that write to a
    stream (of any, in a model without one). The model itself is not changed.

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, of a few
        positions (at least two); None where the model says what it takes
    :param check: try gates and removal on a copy, and leave out what changes the outputs or breaks
        the forward pass (sizes written into the code)
    :raises ValueError: for a model that does not say what it takes
    """
    model = unwrap_module(model, root=True)
    given = sample_inputs(model) if example_inputs is None else example_inputs
    inputs = few_samples(model, given)
    flow = flow_of(model, inputs)
    streams = Streams(model, flow)
    found, skipped = streams.found()
    hidden = hidden_units(model, inputs, check=False)
    for units in hidden.found:
        maker = model.get_submodule(units.makers[0])
        writer = units.makers[0] if isinstance(maker, nn.MultiheadAttention) else units.reader
        if streams.any() and not streams.writes(writer):
            continue
        if units.kind == "neurons":
            found.append(_neurons(units))
            continue
        try:
            found += head_channels(model, units, flow)
        except NoChannels as error:
            skipped[f"{QK} {units.reader}"] = skipped[f"{VO} {units.reader}"] = str(error)
    skipped |= dict(hidden.skipped)
    found.sort(key=lambda units: KINDS.index(units.kind))
    if check and found:
        found = _that_can_go(model, found, inputs, skipped)
    for name, reason in skipped.items():
        _LOGGER.debug("%s cannot be removed: %s", name, reason)
    return GatedGroups(tuple(found), skipped)


def _neurons(units: HiddenUnits) -> GatedUnits:
    reader = next(m for m in units.group.members if m.param == f"{units.reader}.weight".lstrip("."))
    layers = (*units.makers, units.reader)
    site = Site(units.reader, "input", reader.index)
    return GatedUnits(FC, units.reader, units.group, 1, (site,), layers)


def _that_can_go(
    model: nn.Module, found: list[GatedUnits], inputs: Any, skipped: dict[str, str]
) -> list[GatedUnits]:
    """Leave out what cannot go; attention whose scale follows its width gets queries to match."""
    for fold in (False, True):
        folded = [replace(units, fold=fold and units.kind in (QK, VO)) for units in found]
        if not _fault(model, folded, inputs):
            return folded
    kept: list[GatedUnits] = []
    for together in _places(found):
        faults = []
        for fold in (False, True) if together[0].kind == QK else (False,):
            folded = [replace(units, fold=fold) for units in together]
            faults.append(_fault(model, folded, inputs))
            if not faults[-1]:
                kept += folded
                break
        else:
            skipped |= {units.key: faults[0] for units in together}
    return sorted(kept, key=lambda units: KINDS.index(units.kind))


def _places(found: list[GatedUnits]) -> Iterator[list[GatedUnits]]:
    """Units that are tried together: both kinds of channels of an attention."""
    for units in found:
        if units.kind == QK:
            yield [one for one in found if one.name == units.name and one.kind in (QK, VO)]
        elif units.kind != VO:
            yield [units]


@torch.no_grad()
def _fault(model: nn.Module, found: Sequence[GatedUnits], inputs: Any) -> str:
    """Return what goes wrong when every second unit is gated off and removed, or ``""``."""
    probe = copy.deepcopy(model).eval()
    keeps = {units: _every_second(units) for units in found}
    try:
        _sharpen(probe, found)
        gates = Gates(probe, found)
        for units, keep in keeps.items():
            gates.lower(units.key, keep, 0.0)
        before = call_model(probe, inputs)
        gates.detach()
        remove_gated(probe, keeps)
        after = call_model(probe, inputs)
    except (RuntimeError, ValueError) as error:
        return f"removal breaks the model: {error}"
    return _difference(before, after)


def _sharpen(probe: nn.Module, found: Sequence[GatedUnits]) -> None:
    """Give queries and keys weights by which attention is far from even: a wrong scale shows then,
    which it hardly does in a model that was just initialised."""
    generator = torch.Generator().manual_seed(0)
    for units in found:
        for member in units.group.members if units.kind == QK else ():
            slices = probe.get_parameter(member.param).movedim(member.dim, 0)
            if slices.ndim > 1:
                drawn = torch.randn(slices.shape, generator=generator) * _SHARP
                inside = (member.index >= 0).to(slices.device)
                slices[inside] = (drawn / slices.shape[1] ** 0.5).to(slices)[inside]


def _every_second(units: GatedUnits) -> Tensor:
    pool = torch.arange(units.group.size // units.pools) % 2 == 0
    return pool.repeat(units.pools)


def _difference(before: list[Tensor], after: list[Tensor]) -> str:
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if old.shape != new.shape:
            if place == 0 or old.shape[:-1] != new.shape[:-1]:
                return "its dimensions are outputs of the model"
            continue  # such as the last states of an encoder, returned beside the result
        off = (old - new).abs().max().item() if old.is_floating_point() and old.numel() else 0.0
        if not off <= _TOLERANCE * max(1.0, old.abs().max().item()):
            return f"removal changes the outputs, by up to {off:.1e}"
    return ""
