"""Recipes as text: read, rewritten and evaluated without making modifiers."""

from __future__ import annotations

import re
from typing import Any

from sparseml.optim.errors import RecipeTypeError
from sparseml.optim.language.document import Document, check_if_staged_recipe, parse, stages_of
from sparseml.optim.language.expressions import evaluate, is_eval_string
from sparseml.optim.language.metadata import add_framework_metadata, validate_metadata
from sparseml.optim.language.source import RecipeSource, read_source
from sparseml.optim.language.variables import override_variables, parse_recipe_variables
from sparseml.optim.language.yaml_text import dump

__all__ = [
    "add_framework_metadata",
    "check_if_staged_recipe",
    "evaluate_recipe_yaml_str_equations",
    "is_eval_string",
    "load_global_recipe_variables_from_yaml",
    "load_recipe_yaml_str",
    "load_recipe_yaml_str_no_classes",
    "parse_recipe_variables",
    "rewrite_recipe_yaml_string_with_classes",
    "update_recipe_variables",
    "validate_metadata",
]

# a key that stands for a tag, where dump() puts it: at the start of a line or of a list's item
_TAG_KEY = re.compile(r"^( *(?:- )*)OBJECT\.([a-zA-Z_][a-zA-Z^._0-9]+):(?: null)?( \{\})?$", re.M)


def _document(text: str) -> Document:
    return parse(RecipeSource(text))


def load_recipe_yaml_str(file_path: Any, **variable_overrides: Any) -> str:
    """Return the text of a recipe.

    :param file_path: path of a ``.yaml``, ``.yml`` or ``.md`` file, or the text itself
    :raises RecipeError: if there is no such recipe
    """
    text = read_source(file_path).text
    return update_recipe_variables(text, variable_overrides) if variable_overrides else text


def load_recipe_yaml_str_no_classes(recipe_yaml_str: str) -> Any:
    """Return a recipe as plain data.

    ``!Name`` becomes a key ``OBJECT.Name``. If the fields stand at the same column as the tag, they
    are keys beside it, and its value is None; otherwise they are its value.

    :raises RecipeError: if it is not valid
    """
    return _document(recipe_yaml_str).container


def rewrite_recipe_yaml_string_with_classes(recipe_contianer: Any) -> str:
    """The opposite of :func:`load_recipe_yaml_str_no_classes`; keys come in alphabetical order."""
    return _TAG_KEY.sub(r"\1!\2\3", dump(recipe_contianer))


def load_global_recipe_variables_from_yaml(file_path: Any) -> dict[str, Any]:
    """The variables at the root of a recipe, else a RecipeError; expressions not evaluated."""
    container = parse(read_source(file_path)).container
    if not isinstance(container, dict):
        raise RecipeTypeError(f"a recipe must be a mapping, found {type(container).__name__}")
    stages = stages_of(container)
    return {
        key: value
        for key, value in container.items()
        if "modifier" not in str(key) and key not in stages
    }


def update_recipe_variables(recipe_yaml_str: str, variables: dict[str, Any]) -> str:
    """Give new values to variables of a recipe.

    :param variables: new values by name, in stages too; they may be expressions
    :return: the changed text, keys in alphabetical order
    :raises RecipeValueError: if the recipe has no such variable
    """
    document = _document(recipe_yaml_str)
    override_variables(document, variables)
    return rewrite_recipe_yaml_string_with_classes(document.container)


def evaluate_recipe_yaml_str_equations(recipe_yaml_str: str) -> str:
    """Replace all ``eval(...)`` in a recipe by their values.

    :return: the changed text, keys in alphabetical order; what is not a mapping stays as it is
    :raises RecipeRuntimeError: if an expression or a variable cannot be evaluated
    :raises RecipeVariableError: if a modifier uses an unknown variable
    """
    document = _document(recipe_yaml_str)
    if not isinstance(document.container, dict):
        return recipe_yaml_str
    return rewrite_recipe_yaml_string_with_classes(evaluate(document)[0])
