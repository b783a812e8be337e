"""What a pruned model becomes when what is zero is removed from it, and what it lost before."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from sparseml.pytorch.shrink import shrink
from sparseml.pytorch.units.origins import origins_of
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import parameter_count, prunable_params
from sparseml.report.schema import Place

_WORDS = {
    "stream": "dimensions of the stream",
    "heads": "heads",
    "qk": "channels of queries and keys",
    "vo": "channels of values",
    "fc": "neurons",
    "channels": "channels",
}


def shrunk_copy(model: nn.Module, inputs: Any) -> nn.Module | None:
    """Return a smaller copy of ``model`` that computes the same, or one that lost units before.

    :param inputs: a batch: tensor, or tuple, list or dict of tensors
    :return: None where nothing was removed, no neurons, heads or channels are zero as a whole, or
        none of them can be removed
    """
    model = unwrap_module(model, root=True)
    zeros = any(_has_zero_slices(found.param.detach()) for found in prunable_params(model))
    if not zeros and not origins_of(model):
        return None
    smaller = copy.deepcopy(model)
    if zeros:
        shrink(smaller, inputs)
    same = parameter_count(smaller) == parameter_count(model)
    return None if same and not origins_of(model) else smaller


def shrunk_places(model: nn.Module) -> list[Place]:
    """Return how many units were and are in each place of a model that lost some."""
    return [
        Place(kind=key.partition(" ")[0], name=key.partition(" ")[2], before=one["of"],
              after=len(one["kept"]))
        for key, one in origins_of(model).items()
    ]  # fmt: skip


def places_text(places: Sequence[Place]) -> str:
    """Return in words how many units of each kind are left: of all places together."""
    told = []
    for kind, words in _WORDS.items():
        mine = [place for place in places if place.kind == kind]
        left, of = sum(place.after for place in mine), sum(place.before for place in mine)
        if mine:
            told.append(f"{left} of {of} {words}")
    return f"kept {', '.join(told)}"


def layers_text(places: Sequence[Place]) -> str:
    """Return in words which places lost how many: the range of each kind."""
    told = []
    for kind, words in _WORDS.items():
        mine = [place for place in places if place.kind == kind]
        if not mine:
            continue
        least, most = (pick(mine, key=lambda one: one.after / one.before) for pick in (min, max))
        found = f"{least.after} of {least.before} ({least.name})"
        if most.after * least.before != least.after * most.before:
            found += f" to {most.after} of {most.before} ({most.name})"
        where = f" in each of {len(mine)} places" if len(mine) > 1 else ""
        told.append(f"{words}: {found}{where}")
    return f"What is left of the units: {'; '.join(told)}."


def _has_zero_slices(weight: Tensor) -> bool:
    """Whether a whole row or column of a matrix is zero, or a channel of a kernel."""
    zero = weight == 0
    sides = [zero.movedim(dim, 0).flatten(1) for dim in range(min(weight.ndim, 2))]
    return weight.ndim > 1 and any(bool(side.all(dim=1).any()) for side in sides)
