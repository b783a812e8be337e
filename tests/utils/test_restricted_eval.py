from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparseml.utils import UnknownVariableException, expression_variables, restricted_eval


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7), ("-2 ** 2", -4), ("7 // 2", 3), ("7 / 2", 3.5), ("7 % 4", 3),
        ("2 ** 10", 1024), ("a - b", -1.5), ("max(a, b, key)", 4), ("round(2.567, ndigits=1)", 2.6),
        ("round(2.5)", 2), ("int(b) + float(a)", 3.0), ("min(a, b)", 1), ("abs(-b)", 2.5),
        ("1e-3", 0.001), ("\t a ", 1), ("1 ** 999", 1), ("(-1) ** 999", -1), ("0 ** 0", 1),
        ("2 ** -3", 0.125), ("flag", True), ("flag + flag", 2), ("--1", 1),
    ],
)  # fmt: skip
def test_arithmetic(expression: str, value: float) -> None:
    variables = {"a": 1, "b": 2.5, "key": 4, "flag": True}
    result = restricted_eval(expression, variables)
    assert result == value and type(result) is type(value)


def test_a_bare_name_passes_any_value_on() -> None:
    for value in ("text", [1], None, {"a": 1}):
        assert restricted_eval("x", {"x": value}) is value


def test_unknown_names() -> None:
    for expression in ("x", "x + 1", "max(1, x)"):
        with pytest.raises(UnknownVariableException) as info:
            restricted_eval(expression, {"y": 1})
        assert info.value.var_name == "x"
    assert not issubclass(UnknownVariableException, RuntimeError)


@pytest.mark.parametrize(
    "expression",
    ["", " ", "1 +", "a b", "'x'", "x.real", "x[0]", "[1]", "1 < 2", "1 if 1 else 2", "not 1", "1j",
     "f()", "pow(2, 3)", "eval(1)", "lambda: 1", "text + 1", "text * 3", "-text", "max(text)",
     "round(7, -1000000000)", "round(7, 1000000000)",
     "1 / 0", "1.0 % 0", "10.0 ** 400", "int(1e999)", "round(1, 2, 3)", "abs()", "9 ** 9 ** 9",
     "9 ** 400", "9 ** 300 * 9 ** 300", "x" * 2000, "-" * 900 + "1", "(" * 250 + "1" + ")" * 250],
)  # fmt: skip
def test_everything_else_is_a_runtime_error(expression: str) -> None:
    with pytest.raises(RuntimeError) as info:
        restricted_eval(expression, {"text": "abc"})
    assert len(str(info.value)) < 300


@pytest.mark.parametrize("expression", [None, 3, ["1"]])
def test_only_text_is_an_expression(expression: Any) -> None:
    with pytest.raises(RuntimeError, match="must be text"):
        restricted_eval(expression)


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("a + b * a", {"a", "b"}), ("max(a, 1)", {"a"}), ("max + max(1)", {"max"}), ("1", set()),
        ("round(a, ndigits=b)", {"a", "b"}),
    ],
)  # fmt: skip
def test_names_in_an_expression(expression: str, names: set[str]) -> None:
    assert expression_variables(expression) == names


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.floats(-1e6, 1e6))
def test_it_counts_as_python_does(a: int, b: int, x: float) -> None:
    variables = {"a": a, "b": b, "x": x}
    assert restricted_eval("(a - b) * x + -a", variables) == (a - b) * x + -a
    assert restricted_eval("max(a, b) - min(a, x)", variables) == max(a, b) - min(a, x)


@pytest.mark.parametrize("deep", ["-" * 900 + "1", "1" + "+1" * 400])
def test_depth_is_limited_whatever_python_allows(deep: str) -> None:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    try:
        with pytest.raises(RuntimeError):
            restricted_eval(deep)
        assert restricted_eval("1" + "+1" * 150) == 151
        assert restricted_eval("-" * 100 + "1") == 1
    finally:
        sys.setrecursionlimit(limit)


def test_variables_of_one_call_are_unknown_to_the_next() -> None:
    assert restricted_eval("a + 1", {"a": 1}) == 2
    with pytest.raises(UnknownVariableException):
        restricted_eval("a + 1")


def test_threads_do_not_disturb_each_other() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        results = [restricted_eval("n * 2 + i", {"n": number, "i": i}) for i in range(300)]
        wrong.extend(i for i, result in enumerate(results) if result != number * 2 + i)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
