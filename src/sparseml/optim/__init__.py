"""The recipe language: from text to modifiers and back. Knows no torch."""

from sparseml.lazy import lazy_names
from sparseml.optim.errors import (
    RecipeError,
    RecipeFileNotFoundError,
    RecipeRuntimeError,
    RecipeSyntaxError,
    RecipeTagError,
    RecipeTypeError,
    RecipeValueError,
    RecipeVariableError,
)
from sparseml.optim.helpers import (
    add_framework_metadata,
    check_if_staged_recipe,
    evaluate_recipe_yaml_str_equations,
    is_eval_string,
    load_global_recipe_variables_from_yaml,
    load_recipe_yaml_str,
    load_recipe_yaml_str_no_classes,
    parse_recipe_variables,
    rewrite_recipe_yaml_string_with_classes,
    update_recipe_variables,
    validate_metadata,
)
from sparseml.optim.manager import BaseManager
from sparseml.optim.modifier import (
    BaseModifier,
    BaseObject,
    BaseProp,
    BaseScheduled,
    BaseUpdate,
    ModifierProp,
    ModifierYAML,
)
from sparseml.optim.recipe import LoadedRecipe, load_recipe

_MOVED = {
    "sparseml.legacy.analysis.layer_desc": "AnalyzedLayerDesc",
    "sparseml.legacy.sensitivity.results": (
        "LRLossSensitivityAnalysis PruningLossSensitivityAnalysis "
        "PruningPerfSensitivityAnalysis PruningSensitivityResult "
        "default_pruning_sparsities_loss default_pruning_sparsities_perf"
    ),
}
__all__ = [
    "BaseManager",
    "BaseModifier",
    "BaseObject",
    "BaseProp",
    "BaseScheduled",
    "BaseUpdate",
    "LoadedRecipe",
    "ModifierProp",
    "ModifierYAML",
    "RecipeError",
    "RecipeFileNotFoundError",
    "RecipeRuntimeError",
    "RecipeSyntaxError",
    "RecipeTagError",
    "RecipeTypeError",
    "RecipeValueError",
    "RecipeVariableError",
    "add_framework_metadata",
    "check_if_staged_recipe",
    "evaluate_recipe_yaml_str_equations",
    "is_eval_string",
    "load_global_recipe_variables_from_yaml",
    "load_recipe",
    "load_recipe_yaml_str",
    "load_recipe_yaml_str_no_classes",
    "parse_recipe_variables",
    "rewrite_recipe_yaml_string_with_classes",
    "update_recipe_variables",
    "validate_metadata",
]
__all__ += " ".join(_MOVED.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _MOVED)
