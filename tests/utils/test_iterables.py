from __future__ import annotations

from typing import Any

import pytest

from sparseml.utils import (
    bucket_iterable,
    convert_to_bool,
    flatten_iterable,
    parse_kwarg_tuples,
    validate_str_iterable,
    wrapper_decorator,
)
from sparseml.utils.iterables import validate_names


def test_flatten() -> None:
    assert flatten_iterable([1, [2, ("ab", [b"c"])], {3: 4}, []]) == [1, 2, "ab", b"c", 3]
    assert flatten_iterable(range(3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (True, True), (False, False), (1, True), (0, False), ("true", True), ("1", True),
        ("yes", True), ("false", False), ("F", False), ("0", False), ("10", False), ("Self", False),
        ("", False), (None, False), ([1], True),
    ],
)  # fmt: skip
def test_flags(value: Any, flag: bool) -> None:
    assert convert_to_bool(value) is flag


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("__ALL__", "__ALL__"), ("__all_prunable__", "__ALL_PRUNABLE__"), (["a", "b"], ["a", "b"]),
        ([["a"], ("b", ["c"])], ["a", "b", "c"]), (["__ALL__"], ["__ALL__"]), ([], []),
    ],
)  # fmt: skip
def test_names(value: Any, names: Any) -> None:
    assert validate_str_iterable(value, "params") == validate_names(value, "params") == names


def test_only_names_are_looked_at_one_by_one() -> None:
    assert validate_str_iterable([[0], [1]], "") == [0, 1]
    assert validate_str_iterable((None, ["a"])) == [None, "a"]


@pytest.mark.parametrize("value", ["a.weight", "", "re:.*", 3, None, [1], ["a", [None]]])
def test_what_are_no_names(value: Any) -> None:
    with pytest.raises(ValueError, match="is needed for params of X, found"):
        validate_names(value, "params of X")
    if not isinstance(value, list):
        with pytest.raises(ValueError, match="is needed for params of X, found"):
            validate_str_iterable(value, "params of X")


@pytest.mark.parametrize(
    ("count", "edge", "numbers"),
    [
        (10, 0.05, [0] * 3 + [1] * 3 + [2] * 4),  # half a value is no edge
        (20, 0.05, [-1] + [0] * 6 + [1] * 6 + [2] * 7),
        (5, 0.0, [0, 0, 1, 1, 2]),
        (5, 0.4, [-1, -1, 0, 1, 2]),
        (1, 0.0, [2]),
    ],
)
def test_sizes_of_buckets(count: int, edge: float, numbers: list[int]) -> None:
    buckets = bucket_iterable(range(count), num_buckets=3, edge_percent=edge)
    assert [value for _, value in buckets] == list(range(count - 1, -1, -1))
    assert [number for number, _ in buckets] == numbers


def test_buckets_by_a_key() -> None:
    ascending = bucket_iterable(["bb", "a", "ccc"], 2, 0.0, sort_highest=False, sort_key=len)
    assert ascending == [(0, "a"), (0, "bb"), (1, "ccc")]
    assert bucket_iterable([]) == []


@pytest.mark.parametrize(
    ("given", "parsed"),
    [
        ((), {}),
        (("--a", 1, "--b", "2"), {"a": 1, "b": 2}),
        (("-a-b", "2.5", "c", "[1, 2]"), {"a-b": 2.5, "c": [1, 2]}),
        (("--a", "x y", "--b", "None", "c", "'q'"), {"a": "x y", "b": None, "c": "q"}),
        (("--a", "1", "-a", "x", "a", True), {"a": [1, "x", True]}),
        (("--a", "__import__('os')"), {"a": "__import__('os')"}),
    ],
)
def test_keyword_arguments(given: tuple[Any, ...], parsed: dict[str, Any]) -> None:
    assert parse_kwarg_tuples(given) == parsed


def test_a_name_without_a_value() -> None:
    with pytest.raises(ValueError, match="names and values must come in pairs, found 3"):
        parse_kwarg_tuples(("--a", 1, "--b"))


def test_wrappers_become_decorators() -> None:
    @wrapper_decorator
    def doubled(func: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * func(*args, **kwargs)

    @doubled
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    assert add(1, b=4) == 10
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
