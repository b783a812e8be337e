"""What modifiers, trainers and users need around a PyTorch model."""

from sparseml.lazy import lazy_names
from sparseml.pytorch.utils.distributed import (
    record,
    set_deterministic_seeds,
    torch_distributed_zero_first,
)
from sparseml.pytorch.utils.layers import (
    get_layer,
    get_prunable_layers,
    get_quantizable_layers,
    get_quantized_layers,
    get_terminal_layers,
    swap_modules,
)
from sparseml.pytorch.utils.logger import (
    LOGGING_LEVELS,
    BaseLogger,
    ClearMLLogger,
    JSONLinesLogger,
    LambdaLogger,
    LogEntry,
    LoggerManager,
    PythonLogger,
    SparsificationGroupLogger,
    TensorBoardLogger,
    WANDBLogger,
)
from sparseml.pytorch.utils.model import (
    CheckpointError,
    load_epoch,
    load_optimizer,
    save_model,
    thin_model_from_checkpoint,
)
from sparseml.pytorch.utils.names import any_str_or_regex_matches_param_name, canonical_name
from sparseml.pytorch.utils.optimizers import (
    get_optim_groups_learning_rates,
    get_optim_learning_rate,
    set_optim_learning_rate,
)
from sparseml.pytorch.utils.params import NamedLayerParam, get_named_layers_and_params_by_regex
from sparseml.pytorch.utils.saving.checkpoint import save_checkpoint
from sparseml.pytorch.utils.sparsification import GradSampler, ModuleSparsificationInfo
from sparseml.pytorch.utils.sparsification_info import log_module_sparsification_info
from sparseml.pytorch.utils.tensors.nested import (
    device_of,
    tensors_batch_size,
    tensors_module_forward,
)
from sparseml.pytorch.utils.tensors.stats import (
    mask_difference,
    tensor_list_sparsity,
    tensor_sparsity,
)

_MOVED = {
    "sparseml.legacy.export.exporter": "ModuleExporter export_onnx script_model trace_model",
    "sparseml.legacy.export.samples": "tensor_export tensors_export",
    "sparseml.legacy.helpers.layers": (
        "default_device device_to_name_ids get_conv_layers get_dependency_order get_layer_param "
        "get_linear_layers is_parallel_model model_to_device parallelize_model"
    ),
    "sparseml.legacy.helpers.tensors": (
        "MEMORY_BOUNDED detach memory_aware_threshold tensor_density tensor_sample "
        "tensors_to_device tensors_to_precision"
    ),
    "sparseml.legacy.module_run.benchmarks": "BatchBenchmarkResults ModuleBenchmarker",
    "sparseml.legacy.module_run.parts": "early_stop_data_loader infinite_data_loader",
    "sparseml.legacy.module_run.losses": (
        "Accuracy BinaryCrossEntropyLossWrapper CrossEntropyLossWrapper DEFAULT_LOSS_KEY "
        "InceptionCrossEntropyLossWrapper KDLossWrapper KDSettings LossWrapper "
        "TEACHER_LOSS_KEY TopKAccuracy"
    ),
    "sparseml.legacy.module_run.runners": (
        "ModuleDeviceContext ModuleRunFuncs ModuleRunHooks ModuleRunResults ModuleRunner "
        "ModuleTester ModuleTrainer def_model_backward"
    ),
    "sparseml.pytorch.optim.loading": "CheckpointInfo load_checkpoint load_model",
}
__all__ = [
    "LOGGING_LEVELS",
    "BaseLogger",
    "CheckpointError",
    "ClearMLLogger",
    "GradSampler",
    "JSONLinesLogger",
    "LambdaLogger",
    "LogEntry",
    "LoggerManager",
    "ModuleSparsificationInfo",
    "NamedLayerParam",
    "PythonLogger",
    "SparsificationGroupLogger",
    "TensorBoardLogger",
    "WANDBLogger",
    "any_str_or_regex_matches_param_name",
    "canonical_name",
    "device_of",
    "get_layer",
    "get_named_layers_and_params_by_regex",
    "get_optim_groups_learning_rates",
    "get_optim_learning_rate",
    "get_prunable_layers",
    "get_quantizable_layers",
    "get_quantized_layers",
    "get_terminal_layers",
    "load_epoch",
    "load_optimizer",
    "log_module_sparsification_info",
    "mask_difference",
    "record",
    "save_checkpoint",
    "save_model",
    "set_deterministic_seeds",
    "set_optim_learning_rate",
    "swap_modules",
    "tensor_list_sparsity",
    "tensor_sparsity",
    "tensors_batch_size",
    "tensors_module_forward",
    "thin_model_from_checkpoint",
    "torch_distributed_zero_first",
]
__all__ += " ".join(_MOVED.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _MOVED)
