"""How modifiers declare and check their fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparseml.optim.declared_fields import declared_fields
from sparseml.optim.fields import Check, argument, field, fixed, ignored, of_types
from sparseml.utils.iterables import convert_to_bool, validate_str_iterable
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = [
    "Check",
    "argument",
    "as_flag",
    "as_given",
    "as_names",
    "as_number",
    "declared_fields",
    "field",
    "fixed",
    "ignored",
    "of_types",
    "one_of",
]


def as_given(name: str, value: Any) -> Any:
    """``value`` as it is."""
    return value


def as_flag(name: str, value: Any) -> bool:
    """``value`` as True or False; see :func:`~sparseml.utils.iterables.convert_to_bool`."""
    return convert_to_bool(value)


def as_names(name: str, value: Any) -> str | list[str]:
    """``value`` as names and patterns, or the token for all of them.

    :raises ValueError: for another text, and for what is no list of texts
    """
    return validate_str_iterable(value, name)


def as_number(name: str, value: Any) -> float:
    """``value`` as a float; YAML reads numbers such as ``1e-3`` as text.

    :raises ValueError: for a text that is no number
    :raises TypeError: for what is no number at all, None included
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError(f"{name} must be a number, found {value!r}")
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number, found {value!r}") from None


def one_of(choices: Iterable[str]) -> Check:
    """A check that demands one of ``choices``.

    :raises ValueError: (by the check) naming the choices, and the one that looks most alike
    """
    allowed = list(choices)

    def check(name: str, value: Any) -> str:
        if value not in allowed:
            hint = did_you_mean(str(value), allowed)
            raise ValueError(f"{name} must be {quoted_list(allowed)}, found {value!r}{hint}")
        return str(value)

    return check
