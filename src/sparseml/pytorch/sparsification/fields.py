"""How modifiers declare and check their fields.

A check (``as_...``, or what :func:`between`, :func:`list_or_none` and :func:`one_of` return) is
given the name of a field and a value, and returns the value to keep.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

from sparseml.optim.declared_fields import (
    Check,
    argument,
    declared_fields,
    field,
    fixed,
    for_all,
    ignored,
    new_field,
    of_types,
    stated,
)
from sparseml.utils.iterables import convert_to_bool, validate_names
from sparseml.utils.text import did_you_mean, quoted_list
from sparseml.utils.written_number import WrittenNumber, as_written

__all__ = [
    "Check",
    "argument",
    "as_flag",
    "as_given",
    "as_names",
    "as_number",
    "as_optional_names",
    "between",
    "declared_fields",
    "field",
    "fixed",
    "for_all",
    "ignored",
    "list_or_none",
    "new_field",
    "of_types",
    "one_of",
    "plainly",
    "stated",
]


def as_given(name: str, value: Any) -> Any:
    """Return ``value`` as it is."""
    return value


def as_flag(name: str, value: Any) -> bool:
    """Return ``value`` as True or False; see :func:`~sparseml.utils.iterables.convert_to_bool`."""
    return convert_to_bool(value)


def as_names(name: str, value: Any) -> str | list[str]:
    """Return ``value`` as names and patterns, or the token for all of them.

    :raises ValueError: for another text, and for what is no list of texts
    """
    return validate_names(value, name)


def as_optional_names(name: str, value: Any) -> str | list[str] | None:
    """As :func:`as_names`, but what names nothing becomes None."""
    return (as_names(name, value) or None) if value else None


def as_number(name: str, value: Any) -> float:
    """Return ``value``, a number, as it is given; recipes show whole numbers as such.

    Text becomes a float that prints as the text did; YAML reads numbers such as ``1e-3`` as text.

    :raises ValueError: for a text that is no number
    :raises TypeError: for what is no number at all, None included
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{name} must be a number, found {value!r}")
    try:
        return as_written(value)
    except ValueError:
        raise ValueError(f"{name} must be a number, found {value!r}") from None


def plainly(check: Check) -> Check:
    """Return ``check``, after which a number given as text is a plain float, as in SparseML 1.x."""

    def checked(name: str, value: Any) -> Any:
        number = check(name, value)
        return float(number) if isinstance(number, WrittenNumber) else number

    return checked


def between(
    least: float | None = None, most: float | None = None, *, above: float | None = None
) -> Check:
    """Return a check that demands a finite number, or the text of one, within bounds.

    :param above: what the number must be greater than, instead of ``least``
    :raises ValueError: (by the check) naming the bounds
    :raises TypeError: (by the check) for what is no number at all
    """
    bounds: list[tuple[str, float | None, Callable[[float, float], bool]]] = [
        ("greater than", above, operator.gt),
        ("at least", least, operator.ge),
        ("at most", most, operator.le),
    ]
    rules = [(words, bound, holds) for words, bound, holds in bounds if bound is not None]
    wanted = " and ".join(f"{words} {bound:g}" for words, bound, _ in rules)

    def check(name: str, value: Any) -> float:
        number = as_number(name, value)
        fits = all(holds(number, bound) for _, bound, holds in rules)
        if not fits or math.isinf(number):
            number = float(number)
            raise ValueError(f"{name} must be {'finite' if fits else wanted}, found {number}")
        return number

    return check


def list_or_none(wanted: str = "a list", item: Callable[[Any], Any] | None = None) -> Check:
    """Return a check that demands a list (a copy of it is kept), or None.

    :param wanted: what the error says that it must be
    :param item: what to make of each item
    :raises ValueError: (by the check) for a text, and for anything else that is no list
    """

    def check(name: str, value: Any) -> list[Any] | None:
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(f"{name} must be {wanted}, found {value!r}")
        return list(value) if item is None else [item(one) for one in value]

    return check


def one_of(choices: Iterable[str]) -> Check:
    """Return a check that demands one of ``choices``.

    :raises ValueError: (by the check) naming the choices, and the one that looks most alike
    """
    allowed = list(choices)

    def check(name: str, value: Any) -> str:
        if value not in allowed:
            hint = did_you_mean(str(value), allowed)
            raise ValueError(f"{name} must be {quoted_list(allowed)}, found {value!r}{hint}")
        return str(value)

    return check
