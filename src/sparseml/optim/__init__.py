"""The recipe language: from text to modifiers and back. Knows no torch."""

from sparseml.optim.analyzer import AnalyzedLayerDesc
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
from sparseml.optim.sensitivity import (
    LRLossSensitivityAnalysis,
    PruningLossSensitivityAnalysis,
    PruningPerfSensitivityAnalysis,
    PruningSensitivityResult,
    default_pruning_sparsities_loss,
    default_pruning_sparsities_perf,
)

__all__ = [
    "AnalyzedLayerDesc",
    "BaseManager",
    "BaseModifier",
    "BaseObject",
    "BaseProp",
    "BaseScheduled",
    "BaseUpdate",
    "LRLossSensitivityAnalysis",
    "LoadedRecipe",
    "ModifierProp",
    "ModifierYAML",
    "PruningLossSensitivityAnalysis",
    "PruningPerfSensitivityAnalysis",
    "PruningSensitivityResult",
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
    "default_pruning_sparsities_loss",
    "default_pruning_sparsities_perf",
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
