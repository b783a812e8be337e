"""Lists, tokens and flags as users write them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sparseml.utils.constants import ALL_PRUNABLE_TOKEN, ALL_TOKEN
from sparseml.utils.text import did_you_mean, shortened


def flatten_iterable(li: Iterable[Any]) -> list[Any]:
    """Return all elements of nested iterables in one list; strings stay whole."""
    flat: list[Any] = []
    for element in li:
        if isinstance(element, Iterable) and not isinstance(element, (str, bytes)):
            flat.extend(flatten_iterable(element))
        else:
            flat.append(element)
    return flat


def convert_to_bool(val: Any) -> bool:
    """Read a flag as recipes and command lines give it.

    A text is false if it contains ``f`` or ``0``, in any case; other values count by their truth.
    """
    if isinstance(val, str):
        return bool(val) and "f" not in val.lower() and "0" not in val
    return bool(val)


def validate_str_iterable(val: str | Iterable[Any], error_desc: str = "") -> str | list[str]:
    """Read a token for all layers or parameters, or a possibly nested list.

    :param val: ``__ALL__`` or ``__ALL_PRUNABLE__`` in any case, or an iterable, whose elements are
        not looked at; see :func:`validate_names`
    :param error_desc: what the value is for, appended to error messages
    :return: the token in capitals, or the flat list
    :raises ValueError: for any other text, and for what is neither text nor iterable
    """
    where = f" for {error_desc}" if error_desc else ""
    if isinstance(val, str):
        if val.upper() in (ALL_TOKEN, ALL_PRUNABLE_TOKEN):
            return val.upper()
        entry = shortened(val)
        hint = did_you_mean(val, (ALL_TOKEN, ALL_PRUNABLE_TOKEN)) or f"; write it [{entry}]"
        raise ValueError(
            f"a list of names, {ALL_TOKEN} or {ALL_PRUNABLE_TOKEN} is needed{where}, "
            f"found {entry}{hint}"
        )
    if not isinstance(val, Iterable):
        raise ValueError(f"a list of names is needed{where}, found {shortened(val)}")
    return flatten_iterable(val)


def validate_names(val: str | Iterable[Any], error_desc: str = "") -> str | list[str]:
    """Do what :func:`validate_str_iterable` does; a ValueError for no text among the names, too."""
    names = validate_str_iterable(val, error_desc)
    for name in [] if isinstance(names, str) else names:
        if not isinstance(name, str):
            where = f" for {error_desc}" if error_desc else ""
            raise ValueError(
                f"a list of names is needed{where}, found {shortened(name)} among them"
            )
    return names
