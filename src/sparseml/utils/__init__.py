"""Helpers that need no framework."""

from __future__ import annotations

from sparseml.utils.arrays import (
    NumpyArrayBatcher,
    load_numpy,
    save_numpy,
    tensor_export,
    tensors_export,
)
from sparseml.utils.constants import (
    ALL_PRUNABLE_TOKEN,
    ALL_TOKEN,
    FRAMEWORK_METADATA_KEY,
    FROM_PARAM_TOKEN,
    PYTORCH_FRAMEWORK,
    RECIPE_METADATA_KEY,
)
from sparseml.utils.interpolation import (
    INTERPOLATION_FUNCS,
    interpolate,
    interpolate_list_linear,
    interpolated_integral,
)
from sparseml.utils.iterables import (
    bucket_iterable,
    convert_to_bool,
    flatten_iterable,
    parse_kwarg_tuples,
    validate_str_iterable,
    wrapper_decorator,
)
from sparseml.utils.parallel import (
    ParallelWorker,
)
from sparseml.utils.paths import (
    clean_path,
    create_dirs,
    create_parent_dirs,
    create_unique_dir,
    is_package_available,
    is_url,
    path_file_count,
    path_file_size,
)
from sparseml.utils.restricted_eval import (
    UnknownVariableException,
    expression_variables,
    restricted_eval,
)
from sparseml.utils.text import (
    did_you_mean,
    nearest_names,
    quoted_list,
    shortened,
)

__all__ = [
    "ALL_PRUNABLE_TOKEN",
    "ALL_TOKEN",
    "FRAMEWORK_METADATA_KEY",
    "FROM_PARAM_TOKEN",
    "INTERPOLATION_FUNCS",
    "PYTORCH_FRAMEWORK",
    "RECIPE_METADATA_KEY",
    "NumpyArrayBatcher",
    "ParallelWorker",
    "UnknownVariableException",
    "bucket_iterable",
    "clean_path",
    "convert_to_bool",
    "create_dirs",
    "create_parent_dirs",
    "create_unique_dir",
    "did_you_mean",
    "expression_variables",
    "flatten_iterable",
    "interpolate",
    "interpolate_list_linear",
    "interpolated_integral",
    "is_package_available",
    "is_url",
    "load_numpy",
    "nearest_names",
    "parse_kwarg_tuples",
    "path_file_count",
    "path_file_size",
    "quoted_list",
    "restricted_eval",
    "save_numpy",
    "shortened",
    "tensor_export",
    "tensors_export",
    "validate_str_iterable",
    "wrapper_decorator",
]
