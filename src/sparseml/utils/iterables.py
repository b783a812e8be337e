"""Lists, tokens and keyword arguments as users write them."""

from __future__ import annotations

import ast
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sparseml.utils.constants import ALL_PRUNABLE_TOKEN, ALL_TOKEN
from sparseml.utils.text import shortened

__all__ = [
    "bucket_iterable",
    "convert_to_bool",
    "flatten_iterable",
    "parse_kwarg_tuples",
    "validate_str_iterable",
    "wrapper_decorator",
]


def flatten_iterable(li: Iterable[Any]) -> list[Any]:
    """All elements of nested iterables in one list; strings stay whole."""
    flat: list[Any] = []
    for element in li:
        if isinstance(element, Iterable) and not isinstance(element, (str, bytes)):
            flat.extend(flatten_iterable(element))
        else:
            flat.append(element)
    return flat


def convert_to_bool(val: Any) -> bool:
    """
    A flag as recipes and command lines give it.

    A text is false if it contains ``f`` or ``0``, in any case; other values count by their truth.
    """
    if isinstance(val, str):
        return bool(val) and "f" not in val.lower() and "0" not in val
    return bool(val)


def validate_str_iterable(val: str | Iterable[Any], error_desc: str = "") -> str | list[str]:
    """
    Names of layers or parameters: a token for all of them, or a possibly nested list.

    :param val: ``__ALL__`` or ``__ALL_PRUNABLE__`` in any case, or names
    :param error_desc: what the value is for, appended to error messages
    :return: the token in capitals, or the flat list
    :raises ValueError: for any other text, for what is neither text nor iterable, and for what is
        no text among the names
    """
    where = f" for {error_desc}" if error_desc else ""
    if isinstance(val, str):
        if val.upper() in (ALL_TOKEN, ALL_PRUNABLE_TOKEN):
            return val.upper()
        raise ValueError(
            f"a list of names, {ALL_TOKEN} or {ALL_PRUNABLE_TOKEN} is needed{where}, "
            f"found {shortened(val)}"
        )
    if not isinstance(val, Iterable):
        raise ValueError(f"a list of names is needed{where}, found {shortened(val)}")
    names = flatten_iterable(val)
    for name in names:
        if not isinstance(name, str):
            raise ValueError(
                f"a list of names is needed{where}, found {shortened(name)} among them"
            )
    return names


def bucket_iterable(
    val: Iterable[Any],
    num_buckets: int = 3,
    edge_percent: float = 0.05,
    sort_highest: bool = True,
    sort_key: Callable[[Any], Any] | None = None,
) -> list[tuple[int, Any]]:
    """
    Sort values and number the bucket that each falls into.

    :param val: the values
    :param num_buckets: how many buckets of equal size follow the edge
    :param edge_percent: the share of values, from the front, in the edge bucket, numbered -1;
        0 for no edge
    :param sort_highest: put the greatest values first
    :param sort_key: what to sort by, by default the value itself
    :return: pairs of bucket number, from -1, and value
    """
    ordered = sorted(val, key=sort_key, reverse=sort_highest)
    edge = math.ceil(edge_percent * len(ordered)) if edge_percent else 0
    size = max(1, math.ceil((len(ordered) - edge) / num_buckets))
    numbers = itertools.chain(itertools.repeat(-1, edge), (i // size for i in itertools.count()))
    return list(zip(numbers, ordered, strict=False))


def _literal(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def parse_kwarg_tuples(kwargs: Sequence[Any]) -> dict[str, Any]:
    """
    Keyword arguments from a command line.

    :param kwargs: names and values by turns, ``("--alpha", "2.5", "--name", "x")``. Dashes before
        a name are removed; a value that is a Python literal becomes what it denotes
    :return: values by name; a repeated name has a list of its values
    :raises ValueError: if the last name has no value
    """
    if len(kwargs) % 2:
        raise ValueError(f"names and values must come in pairs, found {len(kwargs)}: {kwargs!r}")
    parsed: dict[str, list[Any]] = {}
    for name, value in zip(kwargs[::2], kwargs[1::2], strict=True):
        parsed.setdefault(str(name).lstrip("-"), []).append(_literal(value))
    return {name: values if len(values) > 1 else values[0] for name, values in parsed.items()}


def wrapper_decorator(wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """
    Turn ``wrapper(func, *args, **kwargs)`` into a decorator for ``func``.

    :param wrapper: called in place of the decorated function, which it gets first
    """

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def call(*args: Any, **kwargs: Any) -> Any:
            return wrapper(func, *args, **kwargs)

        return call

    return decorate
