"""The order of constructors' arguments, which scripts written for SparseML 1.x rely on."""

from __future__ import annotations

import inspect

import pytest

from sparseml.pytorch import sparsification
from sparseml.pytorch.sparsification.pruning import BaseGradualPruningModifier

GRADUAL = (
    "init_sparsity, final_sparsity, start_epoch, end_epoch, update_frequency, params, "
    "leave_enabled, inter_func"
)
ORDERS = {
    "GMPruningModifier": f"{GRADUAL}, mask_type, global_sparsity, phased, score_type",
    "MagnitudePruningModifier": f"{GRADUAL}, mask_type",
    "GlobalMagnitudePruningModifier": f"{GRADUAL}, mask_type",
    "MovementPruningModifier": f"{GRADUAL}, mask_type",
    "MFACPruningModifier": f"{GRADUAL}, global_sparsity, use_gradient_buffering, num_grads, damp, "
    "grads_device, fisher_block_size, num_pages, available_devices, mask_type, grad_sampler_kwargs",
    "OBSPruningModifier": f"{GRADUAL}, global_sparsity, mask_type, num_grads, damp, "
    "fisher_block_size, grad_sampler_kwargs, num_recomputations",
    "PowerpropagationModifier": "start_epoch, end_epoch, params, alpha, strict",
    "EpochRangeModifier": "start_epoch, end_epoch",
    "SetLearningRateModifier": "learning_rate, param_groups, start_epoch, end_epoch, "
    "constant_logging",
    "LearningRateFunctionModifier": "lr_func, init_lr, final_lr, start_epoch, end_epoch, "
    "cycle_epochs, param_groups, update_frequency",
    "LearningRateModifier": "lr_class, lr_kwargs, init_lr, start_epoch, end_epoch, "
    "update_frequency, constant_logging",
    "TrainableParamsModifier": "params, trainable, params_strict, start_epoch, end_epoch",
    "SetParamModifier": "params, val, params_strict, start_epoch, end_epoch",
    "GradualParamModifier": "params, init_val, final_val, start_epoch, end_epoch, "
    "update_frequency, inter_func, params_strict",
    "SetWeightDecayModifier": "weight_decay, start_epoch, param_groups, end_epoch, "
    "constant_logging",
    "SparsificationLoggingModifier": "start_epoch, end_epoch, update_frequency",
    "DistillationModifier": "start_epoch, end_epoch, distill_output_keys, teacher_input_keys, "
    "update_frequency, hardness, temperature",
    "HiddenStateDistillationModifier": "start_epoch, end_epoch, teacher_input_keys, "
    "update_frequency, weight, layer, replace_task_loss, mask_padding",
    "PerLayerDistillationModifier": "gain, start_epoch, end_epoch, update_frequency, normalize, "
    "student_layer_names, teacher_layer_names, project_features, epsilon",
}


@pytest.mark.parametrize("name", ORDERS)
def test_arguments_come_in_the_order_of_1x(name: str) -> None:
    order = ORDERS[name].split(", ")
    found = list(inspect.signature(getattr(sparsification, name)).parameters)
    assert found[: len(order)] == order


def test_gradual_base_class() -> None:
    found = list(inspect.signature(BaseGradualPruningModifier.__init__).parameters)
    assert ", ".join(found[1:-1]) == (
        "params, init_sparsity, final_sparsity, inter_func, start_epoch, min_start, end_epoch, "
        "min_end, end_comparator, update_frequency, min_frequency, global_sparsity, "
        "allow_reintroduction, parent_class_kwarg_names"
    )


def test_the_first_three_of_powerpropagation_are_required() -> None:
    modifier = sparsification.PowerpropagationModifier(0, 3, ["re:.*weight"], 2)
    assert (modifier.start_epoch, modifier.end_epoch, modifier.alpha) == (0.0, 3.0, 2)
    with pytest.raises(TypeError, match="params"):
        sparsification.PowerpropagationModifier(0, 3)
    again = sparsification.PowerpropagationModifier(0, 3, ["a"], update_frequency=0.5)
    assert "update_frequency" not in again.props(only_serializable=False)
