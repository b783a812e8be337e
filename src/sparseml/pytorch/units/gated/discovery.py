"""The gated units of a model: residual streams, channels of heads, and neurons."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.gated.channels import NoChannels, head_channels, rotated_together
from sparseml.pytorch.units.gated.flow import flow_of
from sparseml.pytorch.units.gated.gates import Gates
from sparseml.pytorch.units.gated.kinds import FC, KINDS, QK, VO, GatedGroups, GatedUnits, Site
from sparseml.pytorch.units.gated.known import recalled, remember
from sparseml.pytorch.units.gated.removal import remove_gated
from sparseml.pytorch.units.gated.streams import Streams
from sparseml.pytorch.units.hidden import HiddenUnits, hidden_units
from sparseml.pytorch.units.probing import call_model, few_samples, sample_inputs
from sparseml.pytorch.utils.names import unwrap_module

_LOGGER = logging.getLogger(__name__)
_TOLERANCE = 1e-4
_SHARP = 2.0
_CLEARLY = 20.0


def gated_units(model: nn.Module, example_inputs: Any = None, check: bool = True) -> GatedGroups:
    """Find the units of a Transformer that can fade away and be removed, without a look at names.

    A stream is what norms read; channels of heads and neurons are those of blocks that write to a
    stream (of any, in a model without one). The model itself is not changed. What was found is
    kept for as long as the model keeps its sizes, and follows a removal.

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, of a few
        positions (at least two); None where the model says what it takes
    :param check: try gates and removal on a copy, and leave out what changes the outputs or breaks
        the forward pass (sizes written into the code)
    :raises ValueError: for a model that does not say what it takes
    """
    model = unwrap_module(model, root=True)
    given = sample_inputs(model) if example_inputs is None else example_inputs
    if (known := recalled(model, given)) is not None and check:
        return known
    inputs = few_samples(model, given)
    found, skipped = _seen(model, inputs)
    found.sort(key=lambda units: KINDS.index(units.kind))
    if check and found:
        found = _that_can_go(model, found, inputs, skipped)
    for name, reason in skipped.items():
        _LOGGER.debug("%s cannot be removed: %s", name, reason)
    groups = GatedGroups(tuple(found), skipped)
    if check:
        remember(model, given, groups)
    return groups


def _seen(model: nn.Module, inputs: Any) -> tuple[list[GatedUnits], dict[str, str]]:
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
    found, apart = rotated_together(model, found)
    return found, {**skipped, **apart, **hidden.skipped}


def _neurons(units: HiddenUnits) -> GatedUnits:
    reader = next(m for m in units.group.members if m.param == f"{units.reader}.weight".lstrip("."))
    layers = (*units.makers, units.reader)
    site = Site(units.reader, "input", reader.index)
    return GatedUnits(FC, units.reader, units.group, 1, (site,), layers)


def _that_can_go(
    model: nn.Module, found: list[GatedUnits], inputs: Any, skipped: dict[str, str]
) -> list[GatedUnits]:
    """Leave out what cannot go; attention whose scale follows its width gets queries to match."""
    folded, fault = _best_folded(model, found, inputs)
    if not fault:
        return folded
    kept: list[GatedUnits] = []
    for together in _places(found):
        folded, fault = _best_folded(model, together, inputs)
        if fault:
            skipped |= {units.key: fault for units in together}
        else:
            kept += folded
    return sorted(kept, key=lambda units: KINDS.index(units.kind))


def _best_folded(
    model: nn.Module, found: list[GatedUnits], inputs: Any
) -> tuple[list[GatedUnits], str]:
    """Tell by what changes less whether the scale of attention follows its width."""
    plain = [replace(units, fold=False) for units in found]
    fault, off = _fault(model, plain, inputs)
    if not any(units.kind == QK for units in found):
        return plain, fault
    folded = [replace(units, fold=units.kind in (QK, VO)) for units in found]
    other, less = _fault(model, folded, inputs)
    rounding = torch.finfo(next(model.parameters()).dtype).eps
    better = not other and (fault or off > _CLEARLY * max(less, rounding))
    return (folded, other) if better else (plain, fault)


def _places(found: list[GatedUnits]) -> Iterator[list[GatedUnits]]:
    """Units that are tried together: both kinds of channels of attention."""
    for units in found:
        if units.kind == QK:
            values = [one for one in found if one.kind == VO and one.name in units.readers]
            yield [units, *values]
        elif units.kind != VO:
            yield [units]


@torch.no_grad()
def _fault(model: nn.Module, found: Sequence[GatedUnits], inputs: Any) -> tuple[str, float]:
    """Return what goes wrong when every second unit is gated off and removed, or ``""``.

    :return: also by how much the outputs change
    """
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
        return f"removal breaks the model: {error}", math.inf
    return _difference(before, after)


def _sharpen(probe: nn.Module, found: Sequence[GatedUnits]) -> None:
    """Make up queries and keys, so that scores and their scale count, be they trained or not."""
    generator = torch.Generator().manual_seed(0)
    for member in (one for units in found if units.kind == QK for one in units.group.members):
        rows = probe.get_parameter(member.param).movedim(member.dim, 0)
        if rows.ndim > 1:  # biases do not tell a scale
            drawn = torch.randn(rows.shape, generator=generator) * _SHARP / rows[0].numel() ** 0.5
            inside = (member.index >= 0).to(rows.device)
            rows[inside] = drawn.to(rows)[inside]


def _every_second(units: GatedUnits) -> Tensor:
    pool = torch.arange(units.group.size // units.pools) % 2 == 0
    return pool.repeat(units.pools)


def _difference(before: list[Tensor], after: list[Tensor]) -> tuple[str, float]:
    most = 0.0
    for place, (old, new) in enumerate(zip(before, after, strict=True)):
        if old.shape != new.shape:
            if place == 0 or old.shape[:-1] != new.shape[:-1]:
                return "its dimensions are outputs of the model", math.inf
            continue  # such as the last states of an encoder, returned beside the result
        off = (old - new).abs().max().item() if old.is_floating_point() and old.numel() else 0.0
        most = max(most, off / max(1.0, old.abs().max().item() if old.numel() else 0.0))
        if not off <= _TOLERANCE * max(1.0, old.abs().max().item() if off else 0.0):
            return (
                f"removal changes the outputs, by up to {off:.1e}",
                math.inf if off != off else off,
            )
    return "", most
