from __future__ import annotations

import sparseml.utils
import sparseml.utils.helpers as helpers

CONTRACT = """
ALL_TOKEN ALL_PRUNABLE_TOKEN FROM_PARAM_TOKEN RECIPE_METADATA_KEY FRAMEWORK_METADATA_KEY
PYTORCH_FRAMEWORK INTERPOLATION_FUNCS interpolate interpolate_list_linear interpolated_integral
flatten_iterable convert_to_bool validate_str_iterable bucket_iterable clean_path create_dirs
create_parent_dirs create_unique_dir path_file_count path_file_size is_url load_numpy save_numpy
NumpyArrayBatcher tensor_export tensors_export parse_kwarg_tuples is_package_available
ParallelWorker wrapper_decorator
"""


def test_names_are_where_they_are_looked_for() -> None:
    for name in CONTRACT.split():
        assert name in sparseml.utils.__all__ and name in helpers.__all__
        assert getattr(sparseml.utils, name) is getattr(helpers, name)
    assert callable(sparseml.utils.restricted_eval)
    from sparseml.utils.restricted_eval import UnknownVariableException, restricted_eval

    assert sparseml.utils.restricted_eval is restricted_eval
    assert sparseml.utils.UnknownVariableException is UnknownVariableException


def test_tokens() -> None:
    assert sparseml.utils.ALL_TOKEN == "__ALL__"
    assert sparseml.utils.ALL_PRUNABLE_TOKEN == "__ALL_PRUNABLE__"
    assert sparseml.utils.FROM_PARAM_TOKEN == "__FROM_PARAM__"
    assert sparseml.utils.RECIPE_METADATA_KEY == "__metadata__"
    assert sparseml.utils.FRAMEWORK_METADATA_KEY == "framework_metadata"
    assert sparseml.utils.PYTORCH_FRAMEWORK == "pytorch"
    assert sparseml.utils.INTERPOLATION_FUNCS == ["linear", "cubic", "inverse_cubic"]
