"""What the patterns of a recipe catch in a model."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.nn import Module

from sparseml.cli.problems import Problem
from sparseml.optim.document import TAG_PREFIX, Document, Path, parse
from sparseml.optim.source import read_source
from sparseml.pytorch.sparsification.modifier import Modifier
from sparseml.pytorch.sparsification.param_selection import select_params
from sparseml.pytorch.sparsification.preview import preview_selection, selecting_entries

__all__ = ["matches"]


def matches(modifier: Modifier, model: Module, recipe_path: str) -> list[dict[str, Any]]:
    """For every entry by which a modifier selects parameters: what it selects.

    :param recipe_path: where the modifier comes from
    :raises Problem: for an entry that matches nothing although it must, and for parameters that the
        masks do not fit, pointing into the recipe
    """
    entries = selecting_entries(modifier)
    if not entries:
        return []
    if getattr(modifier, "params_strict", True):
        for entry in entries:
            with _pointing_at(recipe_path, entry, modifier):
                select_params(model, [entry])
    with _pointing_at(recipe_path, f"{TAG_PREFIX}{type(modifier).__name__}", modifier):
        preview_selection(modifier, model)
    return [_catch(entry, model) for entry in entries]


def _catch(entry: str, model: Module) -> dict[str, Any]:
    selected = select_params(model, [entry], strict=False)
    return {
        "pattern": entry,
        "tensors": len(selected),
        "weights": sum(match.param.numel() for match in selected),
        "names": [match.name for match in selected],
    }


@contextmanager
def _pointing_at(recipe_path: str, text: str, modifier: Modifier) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        line = _line_of(recipe_path, text)
        place = recipe_path if line is None else f"{recipe_path}:{line}"
        message = f"{place}: {type(modifier).__name__}: {error}"
        raise Problem(message, file=recipe_path, line=line) from error


def _line_of(recipe_path: str, text: str) -> int | None:
    """The line of the only key or value that is ``text``.

    None if there is none, as when an expression or an override made it, or if there are several.
    """
    document = parse(read_source(recipe_path))
    lines = {
        line
        for path, (line, _) in document.marks.items()
        if path and text in (path[-1], _value(document, path))
    }
    return lines.pop() if len(lines) == 1 else None


def _value(document: Document, path: Path) -> Any:
    try:
        return functools.reduce(lambda value, part: value[part], path, document.container)
    except (KeyError, IndexError, TypeError):  # what is merged in has a path of its own
        return None
