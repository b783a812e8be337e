"""Reading recipes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.language.building import build_modifiers
from sparseml.optim.language.document import parse
from sparseml.optim.language.expressions import evaluate
from sparseml.optim.language.metadata import add_framework_metadata, merge_metadata
from sparseml.optim.language.source import RecipeSource, read_source
from sparseml.optim.language.variables import override_variables, parse_recipe_variables
from sparseml.utils.constants import PYTORCH_FRAMEWORK

Modifiers = list[BaseModifier] | dict[str, list[BaseModifier]]


@dataclass(frozen=True)
class LoadedRecipe:
    """What a recipe says.

    :param modifiers: the modifiers in the order of the text, or those of each stage
    :param metadata: ``{"__metadata__": entry}``, or an entry for each stage; entries may be None
    :param variables: the values of the variables at the root, after overrides and evaluation
    :param source: the text as it was read, and from which file
    """

    modifiers: Modifiers
    metadata: dict[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)
    source: RecipeSource = RecipeSource("")  # noqa: RUF009


def load_recipe(
    file_path: Any,
    framework: str = PYTORCH_FRAMEWORK,
    recipe_variables: dict[str, Any] | str | None = None,
    metadata: dict[str, Any] | None = None,
    framework_metadata: dict[str, Any] | None = None,
) -> LoadedRecipe:
    """Read a recipe, give values to its variables and make its modifiers.

    :param file_path: path of a ``.yaml``, ``.yml`` or ``.md`` file, or the recipe's text
    :param framework: whose modifiers the tags name; the package that registers them must have been
        imported
    :param recipe_variables: new values for the recipe's variables: a dict, a JSON object or
        ``"name=value, name=value"``
    :param metadata: replaces the recipe's own metadata; for a recipe with stages possibly keyed by
        their names. Not changed
    :param framework_metadata: versions to note besides those of Python and of this package; noted
        only if ``metadata`` is given
    :raises RecipeError: if anything is wrong with the recipe. The error is also an instance of the
        plain class that fits (ValueError, TypeError, FileNotFoundError, ...), and knows file, line
        and column
    """
    source = read_source(file_path)
    document = parse(source)
    override_variables(document, parse_recipe_variables(recipe_variables))
    container, variables = evaluate(document)
    modifiers = build_modifiers(document, container, framework)
    merged = merge_metadata(document, metadata)
    if metadata is not None:
        # metadata given are not to be changed, and stages may share one entry
        merged = add_framework_metadata(copy.deepcopy(merged), **(framework_metadata or {}))
    return LoadedRecipe(modifiers, merged, variables, source)
