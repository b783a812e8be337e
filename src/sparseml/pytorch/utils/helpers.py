"""Helpers for tensors, layers, parameters, devices and loaders, gathered under one name."""

from sparseml.pytorch.utils.devices import (
    default_device,
    device_of,
    device_to_name_ids,
    is_parallel_model,
    model_to_device,
    parallelize_model,
)
from sparseml.pytorch.utils.distributed import (
    record,
    set_deterministic_seeds,
    torch_distributed_zero_first,
)
from sparseml.pytorch.utils.layers import (
    get_conv_layers,
    get_dependency_order,
    get_layer,
    get_layer_param,
    get_linear_layers,
    get_prunable_layers,
    get_quantizable_layers,
    get_quantized_layers,
    get_terminal_layers,
    swap_modules,
)
from sparseml.pytorch.utils.loaders import early_stop_data_loader, infinite_data_loader
from sparseml.pytorch.utils.names import any_str_or_regex_matches_param_name, canonical_name
from sparseml.pytorch.utils.optimizers import (
    get_optim_groups_learning_rates,
    get_optim_learning_rate,
    set_optim_learning_rate,
)
from sparseml.pytorch.utils.params import NamedLayerParam, get_named_layers_and_params_by_regex
from sparseml.pytorch.utils.tensor_stats import (
    MEMORY_BOUNDED,
    mask_difference,
    memory_aware_threshold,
    tensor_density,
    tensor_list_sparsity,
    tensor_sample,
    tensor_sparsity,
)
from sparseml.pytorch.utils.tensors import (
    detach,
    tensor_export,
    tensors_batch_size,
    tensors_export,
    tensors_module_forward,
    tensors_to_device,
    tensors_to_precision,
)
from sparseml.pytorch.utils.thinning import thin_model_from_checkpoint

__all__ = [
    "MEMORY_BOUNDED",
    "NamedLayerParam",
    "any_str_or_regex_matches_param_name",
    "canonical_name",
    "default_device",
    "detach",
    "device_of",
    "device_to_name_ids",
    "early_stop_data_loader",
    "get_conv_layers",
    "get_dependency_order",
    "get_layer",
    "get_layer_param",
    "get_linear_layers",
    "get_named_layers_and_params_by_regex",
    "get_optim_groups_learning_rates",
    "get_optim_learning_rate",
    "get_prunable_layers",
    "get_quantizable_layers",
    "get_quantized_layers",
    "get_terminal_layers",
    "infinite_data_loader",
    "is_parallel_model",
    "mask_difference",
    "memory_aware_threshold",
    "model_to_device",
    "parallelize_model",
    "record",
    "set_deterministic_seeds",
    "set_optim_learning_rate",
    "swap_modules",
    "tensor_density",
    "tensor_export",
    "tensor_list_sparsity",
    "tensor_sample",
    "tensor_sparsity",
    "tensors_batch_size",
    "tensors_export",
    "tensors_module_forward",
    "tensors_to_device",
    "tensors_to_precision",
    "thin_model_from_checkpoint",
    "torch_distributed_zero_first",
]
