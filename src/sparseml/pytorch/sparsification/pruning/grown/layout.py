"""What a grow-and-prune run does to which parameter: its sparsity, its partition, when it grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn import Module

from sparseml.pytorch.functional.partitions import (
    Partition,
    contiguous_partitions,
    cyclic_groups,
    random_groups,
    require_partitions,
)
from sparseml.pytorch.sparsification.param_selection import as_entries
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.utils.text import few, shown


@dataclass(frozen=True)
class Layout:
    """The parameters of a model as a grow-and-prune run sees them.

    :param selected: the parameters, in the model's order
    :param finals: the sparsity of each when it is not grown
    :param partitions: positions of the parameters in each; none where they are drawn by lot
    :param groups: positions of what is grown in each step
    """

    selected: list[NamedLayerParam]
    finals: list[float]
    partitions: list[Partition]
    groups: list[Partition]

    def density(self, group: Partition) -> float:
        """Return the part of all weights that is not pruned while a group is dense."""
        sizes = [one.param.numel() for one in self.selected]
        pairs = enumerate(zip(sizes, self.finals, strict=True))
        kept = sum(n if place in group else n - round(n * final) for place, (n, final) in pairs)
        return kept / max(sum(sizes), 1)


def lay_out(modifier: Any, module: Module) -> Layout:
    """Return the layout that the fields of a modifier describe.

    :param modifier: a ``GaPPruningModifier``
    :raises RuntimeError: for an entry that matches nothing
    :raises ValueError: for partitions that overlap or leave something out, more of them than there
        are parameters, and parameters without a sparsity
    """
    selected = modifier.select(module, modifier.params)
    owner, skipped = type(modifier).__name__, modifier.first_step
    count, steps = modifier.partition_count, skipped + modifier.num_steps
    partitions: list[Partition] = []
    try:
        if modifier.partition_type == "random":
            groups = random_groups(len(selected), count, steps, modifier.seed)
        elif modifier.partitions is not None:
            partitions = _matched(modifier, module, selected)
        else:
            by_numel = modifier.partition_by == "numel"
            sizes = [one.param.numel() if by_numel else 1 for one in selected]
            partitions = contiguous_partitions(sizes, count)
    except ValueError as error:
        field = "num_partitions" if modifier.partitions is None else "partitions"
        raise ValueError(f"{field} of {owner}: {error}") from None
    if modifier.partition_type == "cyclic":
        groups = cyclic_groups(partitions, steps)
    elif modifier.partition_type == "fixed":
        groups = [partitions[modifier.grown_partition]] * steps
    return Layout(selected, _finals(modifier, module, selected), partitions, groups[skipped:])


def embedded(module: Module) -> set[int]:
    """Return the ids of the parameters that some embedding looks up."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    return {id(layer.weight) for layer in module.modules() if isinstance(layer, kinds)}


def _matched(modifier: Any, module: Module, selected: Sequence[NamedLayerParam]) -> list[Partition]:
    """Return the partitions whose names and patterns are given."""
    places = {id(one.param): place for place, one in enumerate(selected)}
    found = []
    for number, entries in enumerate(modifier.partitions):
        matched: set[int] = set()
        for entry in entries:
            own = modifier.select(module, [entry], strict=True)
            inside = {places[id(one.param)] for one in own if id(one.param) in places}
            if not inside:
                raise ValueError(
                    f"{entry!r} in partition {number} matches nothing that params "
                    f"{shown(modifier.params)} select"
                )
            matched |= inside
        found.append(tuple(sorted(matched)))
    require_partitions(found, [one.name for one in selected])
    return found


def _finals(modifier: Any, module: Module, selected: Sequence[NamedLayerParam]) -> list[float]:
    final = modifier.final_sparsity
    if not isinstance(final, Mapping):
        return [float(final)] * len(selected)
    asked: dict[int, float] = {}
    for sparsity, entries in final.items():
        for one in modifier.select(module, as_entries(entries), strict=True):
            asked.setdefault(id(one.param), float(sparsity))
    if without := [one.name for one in selected if id(one.param) not in asked]:
        raise ValueError(
            f"final_sparsity of {type(modifier).__name__} has no sparsity for {len(without)} of "
            f"the {len(selected)} parameters that params select: {few(without)}"
        )
    return [asked[id(one.param)] for one in selected]
