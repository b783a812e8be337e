"""What the patterns of a recipe catch in a model, and where in its text they are."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any

from torch.nn import Module

from sparseml.cli.problems import Problem
from sparseml.optim.language.document import TAG_PREFIX, Document, Path, parse
from sparseml.optim.language.expressions import is_eval_string
from sparseml.optim.language.source import read_source
from sparseml.optim.props import ModifierProp
from sparseml.pytorch.sparsification.modifier import Modifier, ScheduledModifier
from sparseml.pytorch.sparsification.param_selection import as_entries, select_params
from sparseml.pytorch.sparsification.pruning.mask_creator import get_mask_creator
from sparseml.pytorch.sparsification.pruning.settings.overlap import (
    both_prune,
    shared_time,
    works_alone,
)
from sparseml.pytorch.utils.names import NamePatterns


def check_patterns(modifier: Modifier, recipe_path: str) -> None:
    """Check what can be said of a modifier's patterns without a model.

    :raises Problem: for what is no regular expression, or no mask type
    """
    inside = [name for names in getattr(modifier, "partitions", None) or () for name in names]
    entries = modifier.selecting_entries() + as_entries(getattr(modifier, "exclude", None))
    for entry in entries + inside:
        with pointing_at(recipe_path, modifier, entry):
            NamePatterns([entry])
    with pointing_at(recipe_path, modifier, "mask_type"):
        get_mask_creator(getattr(modifier, "mask_type", "unstructured"))


def matches(modifier: Modifier, model: Module, recipe_path: str) -> list[dict[str, Any]]:
    """Return, for every entry by which a modifier selects parameters, what it selects.

    :raises Problem: for an entry that matches nothing although it must, and for parameters that the
        masks do not fit, pointing into the recipe
    """
    entries = modifier.selecting_entries()
    for entry in as_entries(getattr(modifier, "exclude", None)):
        with pointing_at(recipe_path, modifier, entry):
            select_params(model, [entry], getattr(modifier, "params_strict", True))
    if getattr(modifier, "params_strict", True):
        for entry in entries:
            with pointing_at(recipe_path, modifier, entry):
                select_params(model, [entry])
    with pointing_at(recipe_path, modifier):
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
    modifiers: Sequence[Modifier], found: Sequence[dict[str, Any]], recipe_path: str
) -> list[dict[str, Any]]:
    """Return the pairs of modifiers that prune the same parameters at the same time.

    Such a pair is allowed, but both masks together may leave fewer weights than either asks for.

    :param found: for each its entry in the plan, with ``matches``
    :raises Problem: for a pair of which one needs its parameters for itself, pointing at the other
    :return: numbers of the two from 1, names, and the epochs, -1 for an open end
    """
    pruners = [
        (number, modifier, {name for match in entry["matches"] for name in match["names"]})
        for number, (modifier, entry) in enumerate(zip(modifiers, found, strict=True), start=1)
        if "one_shot_sparsity" in entry and isinstance(modifier, ScheduledModifier)
    ]
    pairs = []
    for (number, one, mine), (other_number, other, others) in combinations(pruners, 2):
        time = shared_time(one, other)
        if time is None or not mine & others:
            continue
        names = sorted(mine & others)
        if works_alone(one, other) and one.steps_resolved and other.steps_resolved:
            with pointing_at(recipe_path, other):
                raise ValueError(both_prune(one, other, names, time))
        end = time[1] if time[1] < math.inf else -1
        pair = {"modifiers": [number, other_number], "names": names}
        pairs.append({**pair, "start_epoch": time[0], "end_epoch": end})
    return pairs


@contextmanager
def pointing_at(recipe_path: str, modifier: Modifier, text: str | None = None) -> Iterator[None]:
    """Raise errors within the block as Problems that name a modifier and its line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        line = line_of(recipe_path, modifier, str(error) if text is None else text)
        place = recipe_path if line is None else f"{recipe_path}:{line}"
        message = f"{place}: {type(modifier).__name__}: {error}"
        raise Problem(message, file=recipe_path, line=line) from error


def line_of(recipe_path: str, modifier: Modifier, text: str) -> int | None:
    """Return the line that a message about a modifier is about, None if that cannot be told.

    :param text: one of the modifier's fields, an entry of one, or a message that names a field
    """
    document = parse(read_source(recipe_path), warn=False)
    tag = _tag_of(document, modifier)
    if tag is None:
        return None
    fields = tag if isinstance(_value(document, tag), dict) else tag[:-1]
    inside = [path for path in document.marks if path[: len(fields)] == fields and path != fields]
    named = [path for path in inside if text in (path[-1], _value(document, path))]
    named = named or [path for path in inside if path == (*fields, _field_in(text, modifier))]
    return document.marks[(named or [tag])[0]][0]


def _tag_of(document: Document, modifier: Modifier) -> Path | None:
    """Return the tag of the modifier of this class whose fields differ least, if only one does.

    Expressions are not known to differ.
    """
    key = f"{TAG_PREFIX}{type(modifier).__name__}"
    differences = {
        tag: _differences(document, tag, modifier)
        for tag in document.marks
        if tag and tag[-1] == key
    }
    least = [tag for tag, count in differences.items() if count == min(differences.values())]
    return least[0] if len(least) == 1 else None


def _differences(document: Document, tag: Path, modifier: Modifier) -> int:
    value = _value(document, tag)
    written = value if isinstance(value, dict) else _value(document, tag[:-1])
    known = modifier.props(only_serializable=True)
    named = [name for name in known if name in written and not is_eval_string(written[name])]
    return sum(written[name] != known[name] for name in named)


def _field_in(message: str, modifier: Modifier) -> str | None:
    """Return the field that a message names first."""
    starts = {
        found.start(): name
        for name in dir(type(modifier))
        if isinstance(getattr(type(modifier), name), ModifierProp)
        and (found := re.search(rf"\b{re.escape(name)}\b", message))
    }
    return starts[min(starts)] if starts else None


def _value(document: Document, path: Path) -> Any:
    try:
        return functools.reduce(lambda value, part: value[part], path, document.container)
    except (KeyError, IndexError, TypeError):  # what is merged in has a path of its own
        return None
