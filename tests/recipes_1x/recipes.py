"""Recipes in the manner of SparseML 1.x, one for each construct that old recipes use."""

from __future__ import annotations

EPOCHS = """\
version: 1.1.0

modifiers:
    - !EpochRangeModifier
        start_epoch: 0.0
        end_epoch: 3.0
"""

PRUNED = """\
num_epochs: &num_epochs 10
init_lr: 1e-3

training_modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: *num_epochs

  - !SetLearningRateModifier
    start_epoch: 0.0
    learning_rate: eval(init_lr)

pruning_modifiers:
  - !GMPruningModifier
    params: __ALL_PRUNABLE__
    init_sparsity: 0.05
    final_sparsity: 0.8
    start_epoch: 0
    end_epoch: 5
    update_frequency: 1
"""

LICENCE = """\
<!--
Copyright (c) 2021 - present / Somebody, Inc. All Rights Reserved.

Licensed under the Apache License, Version 2.0 (the "License");
-->

"""

CARD = """\

# A title

This recipe prunes a network. ---- is no delimiter, and `---` within a line is none either.

| a | table |
|---|---|

---
After it comes a rule.
"""

WORDS = "Words, words, and a: 1. " * 99

STAGED = """\
version: 1.1.0

__metadata__:

pruning_stage:
  num_epochs: 4
  lr: 0.01
  pruning_modifiers:
    - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: eval(num_epochs)
    - !ConstantPruningModifier
      params: ['re:.*weight']
      start_epoch: 0.0

next_stage:
  final: 8.0
  next_training_modifiers:
    - !EpochRangeModifier
      start_epoch: 4.0
      end_epoch: eval(final)
  next_modifiers:
    - !SetLearningRateModifier
      start_epoch: 4
      learning_rate: 0.001
"""

METADATA = """\
version: 1.1.0

__metadata__:
  metadata:
    level1: 1
    stub: zoo:cv/classification/resnet_v1-50/pytorch/sparseml/imagenet/base-none
  framework_metadata:
    python_version: 3.8.10
    sparseml_version: 1.4.0
    torch_version: None

modifiers:
    - !EpochRangeModifier
        end_epoch: 3.0
        start_epoch: 0.0
"""

ONE_LINE = """\
modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 3.5}
  - !SetLearningRateModifier {start_epoch: 0, learning_rate: 0.1}  # 1.0 would be too much
"""

OLD_FIELDS = """\
modifiers:
  - !SetLearningRateModifier
    start_epoch: 0.0
    learning_rate: 0.1
    constant_logging: False
    log_types: __ALL__
"""

REPEATED = """\
modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: 2.0
    end_epoch: 3.0
"""

TEXTS: dict[str, str] = {
    "plain.yaml": EPOCHS,
    "variables.yaml": PRUNED,
    "front_matter.md": f"---\n{PRUNED}---\n{CARD}",
    "pluses.md": f"+++\n{PRUNED}+++\n{CARD}",
    "after_a_comment.md": f"{LICENCE}---\n{PRUNED}---\n{CARD}",
    "after_a_title.md": f"# Title\n\n---\n{PRUNED}---\n{CARD}",
    "after_paragraphs.md": f"{LICENCE}# Title\n\n{WORDS}\n\n  ---\n{PRUNED}  ---  \n",
    "line_ends.md": f"{LICENCE}---\n{PRUNED}---\n{CARD}".replace("\n", "\r\n"),
    "stages.yaml": STAGED,
    "metadata.yaml": METADATA,
    "one_line.yaml": ONE_LINE,
    "old_fields.yaml": OLD_FIELDS,
    "repeated_key.yaml": REPEATED,
}
"""Recipes by the names of files."""

MODIFIERS: dict[str, str] = {
    "EpochRange": "!EpochRangeModifier {start_epoch: 0, end_epoch: 90}",
    "SetLearningRate": "!SetLearningRateModifier {learning_rate: 5e-3, param_groups: [0]}",
    "SetLearningRate, whole": "!SetLearningRateModifier {learning_rate: 1, end_epoch: 3}",
    "LearningRateFunction": "!LearningRateFunctionModifier {lr_func: cosine, init_lr: 1e-1, "
    "final_lr: 0, start_epoch: 0, end_epoch: 10, cycle_epochs: 2, update_frequency: 0.5}",
    "Exponential": "!LearningRateModifier {lr_class: ExponentialLR, lr_kwargs: {gamma: 0.9}, "
    "init_lr: 0.1, start_epoch: 0, end_epoch: 9}",
    "MultiStep": "!LearningRateModifier {lr_class: MultiStepLR, lr_kwargs: {milestones: [43, 60], "
    "gamma: 0.1}, init_lr: 1, start_epoch: 0.0}",
    "TrainableParams": "!TrainableParamsModifier {params: ['re:.*bias'], trainable: False}",
    "SetParam": "!SetParamModifier {params: ['re:.*bias'], val: [0, 1.5], start_epoch: 1}",
    "GradualParam": "!GradualParamModifier {params: ['fc.bias'], init_val: [0.0], final_val: [1], "
    "start_epoch: 0, end_epoch: 4, update_frequency: 1}",
    "SetWeightDecay": "!SetWeightDecayModifier {start_epoch: 5, weight_decay: 1e-4}",
    "SetWeightDecay, whole": "!SetWeightDecayModifier {start_epoch: 5, weight_decay: 0}",
    "SparsificationLogging": "!SparsificationLoggingModifier {start_epoch: 0, update_frequency: 2}",
    "Constant": "!ConstantPruningModifier {params: __ALL__, update_frequency: 0.5}",
    "GM": "!GMPruningModifier {params: __ALL_PRUNABLE__, init_sparsity: 0.05, final_sparsity: 0.8, "
    "start_epoch: 0, end_epoch: 5, update_frequency: 1}",
    "GM, groups": "!GMPruningModifier {params: [], init_sparsity: 0.05, final_sparsity: {0.8: "
    "['fc1.weight'], 0.5: ['re:.*weight']}, start_epoch: 0, end_epoch: 5, update_frequency: 0.5}",
    "Magnitude": "!MagnitudePruningModifier {params: ['re:.*weight'], init_sparsity: 0.05, "
    "final_sparsity: 0.8, start_epoch: 1, end_epoch: 5, update_frequency: 0.5, mask_type: block4}",
    "GlobalMagnitude": "!GlobalMagnitudePruningModifier {params: __ALL__, init_sparsity: 0.05, "
    "final_sparsity: 0.8, start_epoch: 1, end_epoch: 5, update_frequency: 0.5, mask_type: [1, 4]}",
    "Movement": "!MovementPruningModifier {params: __ALL__, init_sparsity: 0.05, "
    "final_sparsity: 0.8, start_epoch: 1, end_epoch: 5, update_frequency: 0.5}",
    "ACDC": "!ACDCPruningModifier {compression_sparsity: 0.9, start_epoch: 0, end_epoch: 100, "
    "update_frequency: 5.0, params: __ALL_PRUNABLE__}",
    "MFAC": "!MFACPruningModifier {params: __ALL_PRUNABLE__, init_sparsity: 0.05, final_sparsity: "
    "0.8, start_epoch: 0, end_epoch: 5, update_frequency: 1.0, num_grads: {0.5: 128, 0.0: 64}, "
    "damp: 1e-6, available_devices: [cpu]}",
    "OBS": "!OBSPruningModifier {params: __ALL_PRUNABLE__, init_sparsity: 0.05, final_sparsity: "
    "0.8, start_epoch: 0, end_epoch: 5, update_frequency: 1.0, damp: 1e-6, fisher_block_size: 50}",
    "OBS, sampler": "!OBSPruningModifier {params: __ALL_PRUNABLE__, init_sparsity: 0.05, "
    "final_sparsity: 0.8, start_epoch: 0, end_epoch: 5, update_frequency: 1.0, damp: 1, "
    "grad_sampler_kwargs: {batch_size: 16}}",
    "RigL": "!RigLPruningModifier {final_sparsity: 0.9, start_epoch: 0.0, end_epoch: 5.0, "
    "update_frequency: 1, params: __ALL__, inter_func: cubic, num_grads: 8}",
    "TopKAST": "!TopKASTPruningModifier {forward_sparsity: 0.8, backward_sparsity: 0.5, "
    "start_epoch: 0.0, end_epoch: 5.0, update_frequency: 1, params: __ALL__, "
    "active_weight_decay: 2e-4}",
    "Structured": "!StructuredPruningModifier {init_sparsity: 0.05, final_sparsity: 0.5, "
    "start_epoch: 0, end_epoch: 5, update_frequency: 1, param_groups: [[a.weight, b.weight]]}",
    "LayerPruning": "!LayerPruningModifier {layers: ['blocks.3'], start_epoch: 2, "
    "update_frequency: 1}",
    "LayerThinning": "!LayerThinningModifier {param_group_dependency_map: {'b.weight': [c.weight], "
    "'a.weight,a.bias': [b.weight]}, start_epoch: 0, update_epochs: [5, 10.5]}",
    "Powerpropagation": "!PowerpropagationModifier {params: ['re:.*weight'], alpha: 2, "
    "start_epoch: 0, end_epoch: 5, strict: False}",
    "Distillation": "!DistillationModifier {start_epoch: 0, hardness: 1, temperature: 4, "
    "distill_output_keys: [logits], update_frequency: 0.1}",
    "PerLayerDistillation": "!PerLayerDistillationModifier {gain: 2, epsilon: 1e-3, "
    "student_layer_names: [a, b]}",
    "Quantization": "!QuantizationModifier {start_epoch: 1, scheme: {weights: {symmetric: True, "
    "num_bits: 8}, input_activations: null}, ignore: [classifier], freeze_bn_stats_epoch: 3}",
    "Quantization, old": "!QuantizationModifier {start_epoch: 1, submodules: [blocks.0], "
    "disable_quantization_observer_epoch: 2, freeze_bn_stats_epoch: 3.0, reduce_range: 1}",
    "Quantization, TensorRT": "!QuantizationModifier {submodules: [a], tensorrt: True}",
    "Quantization, composed": "!QuantizationModifier {submodules: [a], end_epoch: 52}",
}
"""Modifiers by a name for each."""
