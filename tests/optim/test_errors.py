from __future__ import annotations

import pickle
from typing import Any

import pytest
import yaml

from sparseml.optim import errors
from sparseml.optim.errors import RecipeError, matching_recipe_error
from sparseml.utils import UnknownVariableException

PLAIN: dict[str, type[Exception]] = {
    "RecipeAssertionError": AssertionError,
    "RecipeAttributeError": AttributeError,
    "RecipeFileNotFoundError": FileNotFoundError,
    "RecipeIndexError": IndexError,
    "RecipeKeyError": KeyError,
    "RecipeRuntimeError": RuntimeError,
    "RecipeSyntaxError": yaml.error.MarkedYAMLError,
    "RecipeTagError": yaml.constructor.ConstructorError,
    "RecipeTypeError": TypeError,
    "RecipeValueError": ValueError,
    "RecipeVariableError": UnknownVariableException,
}


@pytest.mark.parametrize("name", PLAIN)
def test_every_error_is_also_a_plain_one(name: str) -> None:
    kind: Any = getattr(errors, name)
    error = kind("is wrong", file="r.yaml", line=3, column=5, key="k", found=1, allowed=["a"])
    assert isinstance(error, PLAIN[name]) and isinstance(error, RecipeError)
    assert str(error) == "r.yaml:3: is wrong"
    assert (error.message, error.file, error.line, error.column) == ("is wrong", "r.yaml", 3, 5)
    assert (error.key, error.found, error.allowed) == ("k", 1, ["a"])
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "wrong"), ({"file": "a.md"}, "a.md: wrong"), ({"line": 2}, "<recipe>:2: wrong"),
        ({"file": "a.md", "line": 2}, "a.md:2: wrong"),
    ],
)  # fmt: skip
def test_places(place: dict[str, Any], text: str) -> None:
    assert str(RecipeError("wrong", **place)) == text


@pytest.mark.parametrize(
    ("plain", "name"),
    [
        (ValueError(), "RecipeValueError"), (TypeError(), "RecipeTypeError"),
        (NotImplementedError(), "RecipeRuntimeError"), (OSError(), "RecipeError"),
        (FileNotFoundError(), "RecipeFileNotFoundError"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), "RecipeValueError"),
        (AssertionError(), "RecipeAssertionError"), (KeyError(), "RecipeKeyError"),
        (yaml.scanner.ScannerError(), "RecipeSyntaxError"),
    ],
)  # fmt: skip
def test_matching_errors(plain: Exception, name: str) -> None:
    assert matching_recipe_error(plain).__name__ == name
