"""What the patterns of a recipe catch in a model."""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any

from torch.nn import Module

from sparseml.cli.problems import Problem
from sparseml.cli.recipe_places import line_of
from sparseml.pytorch.sparsification.modifier import Modifier, ScheduledModifier
from sparseml.pytorch.sparsification.param_selection import as_entries, select_params
from sparseml.pytorch.sparsification.pruning.mask_creator import get_mask_creator
from sparseml.pytorch.utils.names import NamePatterns

__all__ = ["check_patterns", "matches", "overlaps"]


def check_patterns(modifier: Modifier, recipe_path: str) -> None:
    """Check what can be said of a modifier's patterns without a model.

    :raises Problem: for what is no regular expression, or no mask type
    """
    for entry in modifier.selecting_entries() + as_entries(getattr(modifier, "exclude", None)):
        with _pointing_at(recipe_path, modifier, entry):
            NamePatterns([entry])
    with _pointing_at(recipe_path, modifier, "mask_type"):
        get_mask_creator(getattr(modifier, "mask_type", "unstructured"))


def matches(modifier: Modifier, model: Module, recipe_path: str) -> list[dict[str, Any]]:
    """Return, for every entry by which a modifier selects parameters, what it selects.

    :raises Problem: for an entry that matches nothing although it must, and for parameters that the
        masks do not fit, pointing into the recipe
    """
    entries = modifier.selecting_entries()
    for entry in as_entries(getattr(modifier, "exclude", None)):
        with _pointing_at(recipe_path, modifier, entry):
            select_params(model, [entry], getattr(modifier, "params_strict", True))
    if getattr(modifier, "params_strict", True):
        for entry in entries:
            with _pointing_at(recipe_path, modifier, entry):
                select_params(model, [entry])
    with _pointing_at(recipe_path, modifier):
        selected = {id(one.param) for one in modifier.selects(model)}
    return [_catch(entry, model, selected) for entry in entries]


def _catch(entry: str, model: Module, among: Container[int]) -> dict[str, Any]:
    found = select_params(model, [entry], strict=False)
    selected = [one for one in found if id(one.param) in among]
    return {
        "pattern": entry,
        "tensors": len(selected),
        "weights": sum(match.param.numel() for match in selected),
        "names": [match.name for match in selected],
    }


def overlaps(
    modifiers: Sequence[Modifier], found: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the pairs of modifiers that prune the same parameters at the same time.

    Such a pair is allowed, but both masks together may leave fewer weights than either asks for.

    :param found: for each its entry in the plan, with ``matches``
    :return: numbers of the two from 1, names, and the epochs, -1 for an open end
    """
    pruners = [
        (number, modifier, {name for match in entry["matches"] for name in match["names"]})
        for number, (modifier, entry) in enumerate(zip(modifiers, found, strict=True), start=1)
        if "one_shot_sparsity" in entry and isinstance(modifier, ScheduledModifier)
    ]
    pairs = []
    for (number, one, mine), (other_number, other, others) in combinations(pruners, 2):
        start = max(one.start_epoch, other.start_epoch)
        end = min(_end(one), _end(other))
        if start < end and mine & others:
            pair = {"modifiers": [number, other_number], "names": sorted(mine & others)}
            pairs.append({**pair, "start_epoch": start, "end_epoch": end if end < math.inf else -1})
    return pairs


def _end(modifier: ScheduledModifier) -> float:
    return math.inf if modifier.end_epoch < 0 else modifier.end_epoch


@contextmanager
def _pointing_at(recipe_path: str, modifier: Modifier, text: str | None = None) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        line = line_of(recipe_path, modifier, str(error) if text is None else text)
        place = recipe_path if line is None else f"{recipe_path}:{line}"
        message = f"{place}: {type(modifier).__name__}: {error}"
        raise Problem(message, file=recipe_path, line=line) from error
