"""The errors of recipes.

Each says where in which file the trouble is. Each is also an instance of the plain class that
code written for SparseML 1.x catches (``ValueError``, ``TypeError``, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from yaml.constructor import ConstructorError
from yaml.error import MarkedYAMLError

from sparseml.utils.restricted_eval import UnknownVariableException


class RecipeError(Exception):
    """Something is wrong with a recipe.

    :param message: what is wrong, without the place
    :param file: path of the recipe, None for raw text
    :param line: line of the offending text, counted from 1
    :param column: its column, counted from 1
    :param key: the key or field concerned
    :param found: the offending value or text
    :param allowed: the valid names or values, if they can be listed
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        key: str | None = None,
        found: Any = None,
        allowed: Sequence[str] | None = None,
    ) -> None:
        place = file if file is not None else ("<recipe>" if line is not None else None)
        if place is not None and line is not None:
            place = f"{place}:{line}"
        # not cooperative: each of the plain classes would make something else of the arguments
        Exception.__init__(self, message if place is None else f"{place}: {message}")
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.key = key
        self.found = found
        self.allowed = allowed

    def __str__(self) -> str:
        # KeyError, OSError and YAML errors would print themselves in their own ways
        return str(self.args[0]) if self.args else ""


class RecipeValueError(RecipeError, ValueError):
    """A value is not allowed."""


class RecipeTypeError(RecipeError, TypeError):
    """A field is unknown or missing, or a value has the wrong type."""


class RecipeRuntimeError(RecipeError, RuntimeError):
    """An expression cannot be evaluated, or a file holds no recipe."""


class RecipeAssertionError(RecipeError, AssertionError):
    """A modifier's own check failed."""


class RecipeAttributeError(RecipeError, AttributeError):
    """A modifier's property cannot be set."""


class RecipeKeyError(RecipeError, KeyError):
    """A key is missing."""


class RecipeIndexError(RecipeError, IndexError):
    """An index is out of range."""


class RecipeFileNotFoundError(RecipeError, FileNotFoundError):
    """The recipe's file does not exist."""


class RecipeVariableError(RecipeError, UnknownVariableException):
    """An expression of a modifier names an unknown variable, ``var_name``."""

    def __init__(self, message: str, *, var_name: str = "", **place: Any) -> None:
        super().__init__(message, **place)
        self.var_name = var_name


class _YAMLError(RecipeError, MarkedYAMLError):
    def __init__(self, message: str, **place: Any) -> None:
        super().__init__(message, **place)
        # what handlers of PyYAML's errors read
        self.problem = message
        self.context = self.context_mark = self.problem_mark = self.note = None


class RecipeSyntaxError(_YAMLError, MarkedYAMLError, ValueError):
    """The text is not YAML."""


class RecipeTagError(_YAMLError, ConstructorError):
    """A tag names no modifier that is known."""


# those with more particular plain classes first
_KINDS: tuple[type[RecipeError], ...] = (
    RecipeTagError, RecipeSyntaxError, RecipeVariableError, RecipeFileNotFoundError,
    RecipeValueError, RecipeTypeError, RecipeRuntimeError, RecipeAssertionError,
    RecipeAttributeError, RecipeKeyError, RecipeIndexError,
)  # fmt: skip


def matching_recipe_error(plain: Exception) -> type[RecipeError]:
    """Return the recipe error that is also an instance of the class of ``plain``, if any is."""
    for kind in _KINDS:
        _, plain_class, *_ = kind.__bases__
        if isinstance(plain, plain_class):
            return kind
    return RecipeError
