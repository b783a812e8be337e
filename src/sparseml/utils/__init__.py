"""Helpers that need no framework."""

from __future__ import annotations

from sparseml.lazy import lazy_names
from sparseml.utils.constants import (
    ALL_PRUNABLE_TOKEN,
    ALL_TOKEN,
    FRAMEWORK_METADATA_KEY,
    FROM_PARAM_TOKEN,
    PYTORCH_FRAMEWORK,
    RECIPE_METADATA_KEY,
)
from sparseml.utils.interpolation import INTERPOLATION_FUNCS, interpolate
from sparseml.utils.iterables import convert_to_bool, flatten_iterable, validate_str_iterable
from sparseml.utils.paths import clean_path, create_dirs, create_parent_dirs
from sparseml.utils.restricted_eval import (
    UnknownVariableException,
    expression_variables,
    restricted_eval,
)
from sparseml.utils.text import did_you_mean, nearest_names, quoted_list, shortened

_MOVED = {
    "sparseml.legacy.export.arrays": (
        "NumpyArrayBatcher load_numpy save_numpy tensor_export tensors_export"
    ),
    "sparseml.legacy.helpers.iterables": (
        "ParallelWorker bucket_iterable interpolate_list_linear interpolated_integral "
        "parse_kwarg_tuples wrapper_decorator"
    ),
    "sparseml.legacy.helpers.samples": (
        "NDARRAY_KEY ROOT_PATH create_unique_dir deprecation_warning is_package_available is_url "
        "json_to_jsonl load_labeled_data parse_optimization_str path_file_count path_file_size"
    ),
}
__all__ = [
    "ALL_PRUNABLE_TOKEN",
    "ALL_TOKEN",
    "FRAMEWORK_METADATA_KEY",
    "FROM_PARAM_TOKEN",
    "INTERPOLATION_FUNCS",
    "PYTORCH_FRAMEWORK",
    "RECIPE_METADATA_KEY",
    "UnknownVariableException",
    "clean_path",
    "convert_to_bool",
    "create_dirs",
    "create_parent_dirs",
    "did_you_mean",
    "expression_variables",
    "flatten_iterable",
    "interpolate",
    "nearest_names",
    "quoted_list",
    "restricted_eval",
    "shortened",
    "validate_str_iterable",
]
__all__ += " ".join(_MOVED.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _MOVED)
