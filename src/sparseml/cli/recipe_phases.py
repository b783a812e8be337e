"""What of a model is dense in each step of a recipe that grows one part after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from sparseml.pytorch.sparsification import GaPPruningModifier

Phase = dict[str, Any]


def phases(modifier: Any, model: nn.Module) -> list[Phase]:
    """Return the steps of a ``GaPPruningModifier``, as plain data; none of any other modifier.

    Each has ``epoch``, ``dense`` (in words), ``tensors`` and ``weights`` (how many are dense),
    ``first`` (the name of the first of them) and ``density`` (of all that is selected).

    :param model: it may be on the meta device
    """
    if not isinstance(modifier, GaPPruningModifier):
        return []
    layout, start = modifier.layout(model), float(modifier.start_epoch)
    epochs = [start + step * modifier.update_frequency for step in range(modifier.num_steps + 1)]
    stays = [] if modifier.final_prune else layout.groups[-1:]
    groups = [*layout.groups, *(stays or [()])]
    return [
        {
            "epoch": epoch,
            "dense": modifier.phase_at(epoch),
            "tensors": len(group),
            "weights": sum(layout.selected[place].param.numel() for place in group),
            "first": layout.selected[group[0]].name if group else "",
            "density": layout.density(group),
        }
        for epoch, group in zip(epochs, groups, strict=True)
    ]


def rows(found: list[Phase], most: int | None) -> Iterable[tuple[str, ...]]:
    """Return rows of a table for steps, at most so many.

    :param most: None for all
    """
    shown = found if most is None or len(found) <= most else [*found[: most - 1], found[-1]]
    for phase in shown:
        if len(shown) < len(found) and phase is shown[-1]:
            yield "", f"... {len(found) - len(shown)} more (--all shows them)", "", "", "", ""
        yield (
            f"{phase['epoch']:g}",
            phase["dense"],
            f"{phase['tensors']:,}",
            f"{phase['weights']:,}",
            f"{phase['density']:.4f}",
            phase["first"],
        )
