"""Which gated units of a model go, by a compression rate and the gradients of their gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.functional.shrinking.choosing import importance, keep_in_each, keep_overall
from sparseml.pytorch.functional.shrinking.rates import keep_ratio, removed_count, require_rate
from sparseml.pytorch.sparsification.fields import as_number
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.units.gated import GatedGroups, GatedUnits, Gates
from sparseml.pytorch.utils.distributed import sum_over_ranks
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.text import few

STAGES = {0: ("stream", "qk", "vo", "fc"), 1: ("stream",), 2: ("qk", "vo", "fc")}
"""What goes in each stage: all, the stream, or all that is inside of blocks."""


def as_rate(name: str, value: Any) -> float:
    """Return a share of what is kept, a field's value; a ValueError names the bounds."""
    rate = as_number(name, value)
    require_rate(rate, name)
    return rate


def as_stage(name: str, value: Any) -> int:
    """Return a key of :data:`STAGES`, a field's value; a ValueError names them."""
    if isinstance(value, bool) or value not in STAGES:
        raise ValueError(f"{name} must be one of {', '.join(map(str, STAGES))}, found {value!r}")
    return int(value)


def model_keep_ratio(
    model: nn.Module,
    groups: GatedGroups,
    rate: float,
    originals: Mapping[str, int] | None = None,
) -> float:
    """Return the share of units to keep so that a share of the weights that can shrink is kept.

    Weights that belong to no unit (positions of words in a table count, words do not) are left out.

    :param groups: all gated units of the model, whatever stage is meant
    :param originals: how many units there were before any went, by key; None if none did
    :raises ValueError: for a model without any
    """
    covered: dict[int, tuple[nn.Parameter, dict[int, dict[str, Tensor]]]] = {}
    growth = {}  # how many there were, for so many that are left
    for units in groups.found:
        size = units.group.size
        growth[units.key] = ((originals or {}).get(units.key, size), size)
        for member in units.group.members:
            param = model.get_parameter(member.param)
            _, dims = covered.setdefault(id(param), (param, {}))
            inside = dims.setdefault(member.dim, {})
            none = torch.zeros(len(member.index), dtype=torch.bool)
            inside[units.key] = inside.get(units.key, none) | (member.index >= 0)
    totals = [0, 0, 0]
    for param, dims in covered.values():
        # how many entries lie in units along no, one or two dimensions
        counts = [1, 0, 0]
        for dim, length in enumerate(param.shape):
            found = {key: int(mask.sum()) for key, mask in dims.get(dim, {}).items()}
            outside = length - sum(found.values())
            whole = sum(count * growth[key][0] // growth[key][1] for key, count in found.items())
            counts = [
                counts[0] * outside,
                counts[1] * outside + counts[0] * whole,
                counts[2] * (outside + whole) + counts[1] * whole,
            ]
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
    return keep_ratio(totals[2], totals[1], rate)


def wanted_units(groups: GatedGroups, stage: int, owner: str) -> tuple[GatedUnits, ...]:
    """Return the units of a stage; a ValueError in the name of ``owner`` if there are none."""
    kinds = STAGES[stage]
    if not (wanted := groups.of(*kinds)):
        reasons = [f"{key}: {reason}" for key, reason in groups.skipped.items()]
        why = few(reasons, between="; ") if reasons else ""
        raise ValueError(
            f"{owner} finds nothing to remove in stage {stage} ({', '.join(kinds)})"
            f"{': ' + why if why else ''}"
        )
    return wanted


def unit_scores(
    model: nn.Module, gates: Gates, sampler: GradientSampler, batches: int
) -> dict[str, Tensor]:
    """Return the importance of all gated units, summed over batches and ranks.

    :return: key of the units -> float64 ``[units]`` on the CPU
    """
    given = gates.trainable()
    sought = [
        NamedLayerParam(units.key, model, "gates", gate)  # type: ignore[arg-type]
        for units, gate in zip(gates.units, given, strict=True)
    ]
    sums = [torch.zeros_like(gate, dtype=torch.float64) for gate in given]
    for sampled in sampler.gradients(model, sought, batches):
        for place, total in enumerate(sums):
            total += sampled.of(place)[0].double()
    sampler.require_sound()
    if not sampler.same_on_all_ranks:
        sums = sum_over_ranks(sums)
    for units, gate in zip(gates.units, given, strict=True):
        gates.set(units.key, gate.detach())
    pairs = zip(gates.units, sums, strict=True)
    return {units.key: importance(total).cpu() for units, total in pairs}


def kept_units(
    units: Sequence[GatedUnits],
    scores: Mapping[str, Tensor],
    originals: Mapping[str, int],
    keep: float,
    iteration: tuple[int, int] = (1, 1),
    per_layer: bool = False,
    least: int = 1,
) -> dict[str, Tensor]:
    """Decide which units stay: as many in every head, and of neurons in all layers together.

    :param scores: importance by key
    :param originals: how many units there were before anything went, by key
    :param keep: the share of these to keep after the last iteration
    :param iteration: which one this is, and of how many
    :param per_layer: rank the neurons of each layer by themselves
    :param least: how many stay in every head, and neurons in every layer
    :return: by key bool ``[units]``
    """
    found: dict[str, Tensor] = {}
    neurons = [one for one in units if one.kind == "fc"]
    for one in units:
        if one.kind != "fc" or per_layer:
            size, left = originals[one.key] // one.pools, one.group.size // one.pools
            count = removed_count(size, keep, *iteration) - (size - left)
            found[one.key] = keep_in_each(scores[one.key], one.pools, min(count, left - least))
    if neurons and not per_layer:
        size = sum(originals[one.key] for one in neurons)
        count = removed_count(size, keep, *iteration)
        count -= size - sum(one.group.size for one in neurons)
        masks = keep_overall([scores[one.key] for one in neurons], count, least)
        found |= dict(zip((one.key for one in neurons), masks, strict=True))
    return found
