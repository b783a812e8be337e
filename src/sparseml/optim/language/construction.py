"""One modifier made from its fields, or the error that says what is wrong with which."""

from __future__ import annotations

import inspect
import re
from typing import Any

from sparseml.optim.declared_fields import accepted_arguments
from sparseml.optim.errors import (
    RecipeError,
    RecipeTagError,
    RecipeTypeError,
    matching_recipe_error,
)
from sparseml.optim.language.document import Document, Path, variables_of
from sparseml.optim.language.registration import IGNORED_FIELDS, registered_modifiers
from sparseml.optim.steps import STEP_TWINS
from sparseml.utils.text import did_you_mean, shortened

Fields = dict[str, Any]
# some name what they found, however long it is
_LONGEST_MESSAGE = 1000
# what a constructor raises when it refuses its arguments
_REFUSALS = (
    ValueError, TypeError, RuntimeError, AssertionError, LookupError, AttributeError,
    ArithmeticError,
)  # fmt: skip


def _accepted_fields(clazz: type) -> tuple[set[str], set[str]]:
    """The fields that a class accepts, and those of them that it needs."""
    accepted = accepted_arguments(clazz.__mro__)
    parameters = inspect.signature(clazz).parameters.values()
    needed = {p.name for p in parameters if p.default is p.empty and p.name in accepted}
    return accepted | {field for field, twin in STEP_TWINS.items() if twin in accepted}, needed


def _check_fields(
    document: Document, clazz: type, fields: Fields, tag_path: Path, field_path: Path
) -> None:
    """Say which field a constructor refused because it is unknown or missing, if one is."""
    accepted, needed = _accepted_fields(clazz)
    for name in fields:
        if name in accepted:
            continue
        hint = did_you_mean(str(name), accepted)
        message = f"unknown field {shortened(name)} of !{clazz.__name__}{hint}"
        path = (*field_path, name)
        raise document.error(
            RecipeTypeError, message, path, key=str(name), found=name, allowed=sorted(accepted)
        )
    given = set(fields) | {twin for field, twin in STEP_TWINS.items() if field in fields}
    missing = sorted(needed - given)
    if missing:
        message = f"missing fields of !{clazz.__name__}: {', '.join(missing)}"
        raise document.error(RecipeTypeError, message, tag_path, allowed=missing)


def _field_in(message: str, fields: Fields) -> list[str]:
    """The field that an error's message names first, if any."""
    found = {name: re.search(rf"\b{re.escape(name)}\b", message) for name in fields}
    starts = {name: match.start() for name, match in found.items() if match}
    return sorted(starts, key=lambda name: starts[name])[:1]


def _variable_hint(found: Any, document: Document) -> str:
    """Return what to write for a text that seems to mean variables."""
    if not isinstance(found, str) or not isinstance(document.container, dict):
        return ""
    words = set(re.findall(r"[^\W\d]\w*", found))
    named = words and words <= set(map(str, variables_of(document.container)))
    return f"; to use variables, write eval({found})" if named else ""


def construct(
    document: Document, name: str, fields: Fields, tag_path: Path, field_path: Path, framework: str
) -> Any:
    """Make a modifier.

    :param field_path: what the paths of the fields begin with
    :raises RecipeTagError: if no such modifier is known
    :raises RecipeTypeError: if a field is unknown or missing
    :raises RecipeError: if the constructor refuses the fields; also an instance of what it raised
    """
    registered = registered_modifiers(framework)
    name = name.removeprefix(f"{framework}.")
    if name not in registered:
        raise document.error(
            RecipeTagError,
            f"unknown modifier !{name:.80}{did_you_mean(name, registered)}",
            tag_path,
            found=f"!{name}",
            allowed=sorted(registered),
        )
    fields = {key: value for key, value in fields.items() if key not in IGNORED_FIELDS}
    clazz = registered[name].clazz
    try:
        clazz = registered[name].class_for(fields)
        # before the fields are looked at: a constructor may take more than its signature tells
        return registered[name].build(fields)
    except RecipeError:
        raise
    except _REFUSALS as err:
        _check_fields(document, clazz, fields, tag_path, field_path)
        about = _field_in(str(err), fields)
        path = (*field_path, *about) if about else tag_path
        found = fields[about[0]] if about else None
        text = str(err)
        text = text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."
        message = text if name in text else f"!{name}: {text}"
        message += _variable_hint(found, document)
        raise document.error(matching_recipe_error(err), message, path, found=found) from err
