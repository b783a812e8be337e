"""Where in its recipe a modifier, or one of its fields, stands."""

from __future__ import annotations

import functools
import re
from typing import Any

from sparseml.optim.language.document import TAG_PREFIX, Document, Path, parse
from sparseml.optim.language.expressions import is_eval_string
from sparseml.optim.language.source import read_source
from sparseml.optim.props import ModifierProp
from sparseml.pytorch.sparsification.modifier import Modifier

__all__ = ["line_of"]


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
