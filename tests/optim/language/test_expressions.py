from __future__ import annotations

from typing import Any

import pytest

from sparseml.optim import (
    RecipeError,
    evaluate_recipe_yaml_str_equations,
    is_eval_string,
    load_recipe_yaml_str_no_classes,
)
from sparseml.utils import UnknownVariableException


def evaluated(text: str) -> Any:
    return load_recipe_yaml_str_no_classes(evaluate_recipe_yaml_str_equations(text))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("eval(a)", True), ("eval()", True), (" eval(a)", False), ("eval(a) ", False),
        ("EVAL(a)", False), (3, False), (None, False), ("evaluate(a)", False),
    ],
)  # fmt: skip
def test_what_is_an_expression(value: Any, expected: bool) -> None:
    assert is_eval_string(value) is expected


def test_variables_may_come_in_any_order() -> None:
    text = "d: eval(c - a)\na: 2\nc: eval(b * b)\nb: eval(a + 1)\n"
    assert evaluated(text) == {"a": 2, "b": 3, "c": 9, "d": 7}


def test_a_long_chain_of_variables() -> None:
    text = "".join(f"v{i}: eval(v{i + 1} + 1)\n" for i in range(3000)) + "v3000: 0\n"
    assert evaluated(text)["v0"] == 3000


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("n * 0.2", 2.0), ("i + 1", 4), ("-i", -3), ("+i", 3), ("i // 2", 1), ("i % 2", 1),
        ("i / 2", 1.5), ("2 ** -1", 0.5), ("round(n / 3)", 3), ("round(n / 3, ndigits=1)", 3.3),
        ("max(i, n, 4)", 10.0), ("min(i, 2)", 2), ("abs(-i)", 3), ("int(2.7)", 2),
        ("float(i)", 3.0),         ("flag + 1", 2), ("(i)", 3), ("  i ", 3), ("1e-3 * 2", 0.002),
    ],
)  # fmt: skip
def test_values_and_types(expression: str, value: float) -> None:
    result = evaluated(f"n: 10.0\ni: 3\nflag: true\nx: eval({expression})\n")["x"]
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: eval(b)\nb: eval(a)\n", "circular variables: "),
        ("a: eval(a)\n", "circular variables: a -> a"),
        ("a: eval(b + 1)\n", "unknown variable 'b'"),
        ("alpha: 1\nb: eval(alhpa)\n", "did you mean 'alpha'"),
        ("a: x\nb: eval(a)\n", "'eval(a)' is not a number but 'x'"),
        ("a: x\nb: eval(a + 1)\n", "'x' is not a number"),
        ("a: [1]\nb: eval(a)\n", r"not a number but \[1\]"),
        ("a: eval(eval(1))\n", "cannot be evaluated"),
        ("a: eval(round_to_int(1))\n", "cannot be evaluated"),
        ("a: eval()\n", "is not arithmetic"),
        ("a: eval('1')\n", "'1' is not a number"),
        ("a: eval(1 / 0)\n", "division by zero"),
    ],
)
def test_variables_that_cannot_be_evaluated(text: str, message: str) -> None:
    with pytest.raises(RuntimeError) as info:
        evaluate_recipe_yaml_str_equations(text)
    assert isinstance(info.value, RecipeError)
    assert info.value.line == 1 + text.count("\n", 0, text.index("eval"))
    with pytest.raises(RuntimeError, match=message.replace("(", r"\(").replace(")", r"\)")):
        raise info.value


MODIFIER = "modifiers:\n  - !XX\n    p: {}\n"


@pytest.mark.parametrize("value", ["text", ["a", "b"], None, {"k": 1}, 3, True])
def test_a_modifier_takes_a_variable_of_any_type(value: Any) -> None:
    import json

    text = f"v: {json.dumps(value)}\n" + MODIFIER.format("eval(v)")
    assert evaluated(text)["modifiers"][0]["p"] == value


def test_modifiers_are_evaluated_at_any_depth() -> None:
    text = "n: 2\n" + MODIFIER.format("{a: [eval(n), {b: eval(n + 1)}], c: x}")
    assert evaluated(text)["modifiers"][0]["p"] == {"a": [2, {"b": 3}], "c": "x"}


def test_an_unknown_name_in_a_modifier() -> None:
    with pytest.raises(UnknownVariableException) as info:
        evaluate_recipe_yaml_str_equations("num: 2\n" + MODIFIER.format("eval(nun)"))
    assert info.value.var_name == "nun"
    assert "line 4" not in str(info.value)
    assert str(info.value) == (
        "<recipe>:4: unknown variable 'nun' in eval(nun); did you mean 'num'?"
    )


STAGED = """\
g: 3
s: hello
shared: 1
stage_0:
  shared: 10
  a: eval(g)
  b: eval(a + shared)
  t: eval( s )
  modifiers:
    - !XX
      p: [eval(shared), eval(b * g), eval(t)]
stage_1:
  modifiers:
    - !XX
      p: eval(shared)
"""


def test_stages_see_their_own_variables_first() -> None:
    result = evaluated(STAGED)
    stage = result["stage_0"]
    assert (stage["a"], stage["b"], stage["t"]) == (3, 13, "hello")
    assert stage["modifiers"][0]["p"] == [10, 39, "hello"]
    assert result["stage_1"]["modifiers"][0]["p"] == 1


@pytest.mark.parametrize(
    "value", ["eval(g * 3)", "eval(a - g)", "eval(-g)", "[1, {x: eval(g + 1)}]"]
)
def test_variables_of_a_stage_do_not_calculate_with_those_of_the_root(value: str) -> None:
    text = f"g: 3\nstage:\n  a: 1\n  b: {value}\n  modifiers:\n    - !XX {{p: eval(a * g)}}\n"
    with pytest.raises(RuntimeError, match=r"can only use bare, as eval\(g\)") as info:
        evaluate_recipe_yaml_str_equations(text)
    assert isinstance(info.value, RecipeError)
    assert info.value.line == 4
    stage = evaluated(text.replace("a: 1", "a: eval(g)").replace(value, "eval(a * 3)"))["stage"]
    assert (stage["b"], stage["modifiers"]) == (9, [{"OBJECT.XX": {"p": 9}}])


def test_a_stage_does_not_see_another() -> None:
    with pytest.raises(UnknownVariableException):
        evaluate_recipe_yaml_str_equations(
            "s0: {a: 1, modifiers: [!XX {p: 1}]}\ns1: {modifiers: [!XX {p: eval(a)}]}\n"
        )
    with pytest.raises(RuntimeError):
        evaluate_recipe_yaml_str_equations("s0: {a: eval(b), modifiers: [!XX {p: 1}]}\n")


def test_metadata_are_no_expressions() -> None:
    text = "__metadata__: {note: eval(nothing)}\nmodifiers: []\n"
    assert evaluated(text)["__metadata__"] == {"note": "eval(nothing)"}
