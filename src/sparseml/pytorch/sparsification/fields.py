"""Short ways to write the fields of a modifier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sparseml.optim.modifier import ModifierProp
from sparseml.utils.iterables import convert_to_bool
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = ["as_number", "field", "flag_field", "one_of"]

Check = Callable[[str, Any], Any]


def field(name: str, check: Check, doc: str, serializable: bool = True) -> Any:
    """A settable property kept in the attribute ``_<name>``.

    :param check: given the name and a value, returns the value to keep, or raises
    """
    attribute = f"_{name}"

    def get(modifier: Any) -> Any:
        return getattr(modifier, attribute)

    def set_checked(modifier: Any, value: Any) -> None:
        setattr(modifier, attribute, check(name, value))

    return ModifierProp(serializable, func_get=get, func_set=set_checked, doc=doc)


def flag_field(name: str, doc: str, serializable: bool = True) -> Any:
    """A settable property that is True or False."""
    return field(name, lambda _, value: convert_to_bool(value), doc, serializable)


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
