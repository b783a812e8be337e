from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sparseml.optim import LoadedRecipe, RecipeError, parse_recipe_variables

RECIPE = (
    "end: 3\nmodifiers:\n  - !EpochRangeModifier\n    start_epoch: 0\n    end_epoch: eval(end)\n"
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {}), ("", {}), ({}, {}), ({"a": [1]}, {"a": [1]}),
        ('{"a": 1, "b": [1.5, null], "c": "x"}', {"a": 1, "b": [1.5, None], "c": "x"}),
        ("a=1", {"a": 1.0}), ("a: 1, b = 2.5,c=x y", {"a": 1.0, "b": 2.5, "c": "x y"}),
        ("a=1e-3", {"a": 0.001}), ("a=true", {"a": "true"}), ("a=", {"a": ""}),
    ],
)  # fmt: skip
def test_forms(given: Any, expected: dict[str, Any]) -> None:
    parsed = parse_recipe_variables(given)
    assert parsed == expected
    assert {key: type(value) for key, value in parsed.items()} == {
        key: type(value) for key, value in expected.items()
    }


def test_a_dict_is_returned_as_it_is() -> None:
    given = {"a": 1}
    assert parse_recipe_variables(given) is given


@pytest.mark.parametrize(
    "given",
    [
        "a", "a=1=2", "a=1,,b=2", "{a=1}", "!a=1", "=1", "5", "[1]", '"a"', "null", 5, ["a=1"],
        "[" * 9999,
    ],
)  # fmt: skip
def test_anything_else_is_an_error(given: Any) -> None:
    with pytest.raises(ValueError, match="recipe variables must be") as info:
        parse_recipe_variables(given)
    assert isinstance(info.value, RecipeError)
    assert len(str(info.value)) < 300


class Colour(str, enum.Enum):
    red = "red"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (5, 5.0), ("eval(2 + 2)", 4.0), (np.float32(2.5), 2.5), (np.int64(4), 4.0),
        (np.float64(1.5), 1.5),
    ],
)  # fmt: skip
def test_overrides_reach_modifiers(
    load: Callable[..., LoadedRecipe], value: Any, plain: float
) -> None:
    recipe = load(RECIPE, recipe_variables={"end": value})
    assert recipe.modifiers[0].end_epoch == plain
    assert recipe.variables == {"end": plain}
    assert type(recipe.variables["end"]) in (int, float)


def test_lists_and_enumerations_lose_their_types(load: Callable[..., LoadedRecipe]) -> None:
    text = RECIPE + "names: [a]\n"
    for value in (("x", Colour.red), np.array(["x", "red"]), ["x", "red"]):
        recipe = load(text, recipe_variables={"names": value})
        assert recipe.variables["names"] == ["x", "red"]
        assert all(type(name) is str for name in recipe.variables["names"])


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", lambda: 1, [[object()]]])
def test_values_that_no_recipe_can_hold(error_of: Any, value: Any) -> None:
    error = error_of(RECIPE, recipe_variables={"end": value})
    assert isinstance(error, TypeError)
    assert "the value for 'end' must be text, a number, a list or a dict" in str(error)


def test_endless_values(error_of: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert "nested too deeply" in str(error_of(RECIPE, recipe_variables={"end": endless}))


def test_unknown_names(error_of: Any) -> None:
    error = error_of(RECIPE, recipe_variables={"edn": 3})
    assert isinstance(error, ValueError)
    assert str(error) == "the recipe has no variable 'edn'; did you mean 'end'?"
    assert (error.key, error.allowed) == ("edn", ["end"])
    assert "no variables" in str(error_of("- 1\n", recipe_variables={"a": 1}))
