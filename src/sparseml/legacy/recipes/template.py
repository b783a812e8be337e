"""Recipes to start from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseml.pytorch.utils.layers import get_prunable_layers
from sparseml.utils.paths import clean_path, create_parent_dirs
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = ["recipe_template"]

PRUNING_KINDS = ("true", "false", "gmp", "acdc", "mfac", "movement", "obs", "constant")
"""What ``pruning`` may be, besides True, False and None."""
LR_FUNCTIONS = (
    "linear", "cosine", "cyclic_linear", "cyclic", "constant", "stepped", "exponential",
)  # fmt: skip
MASK_TYPES = {"vnni": "block4", "tensorrt": "2:4"}
"""The pattern that a target computes faster."""
_SECOND_ORDER = {
    "mfac": {"num_grads": 64, "fisher_block_size": 10000},
    "obs": {"num_grads": 1024, "fisher_block_size": 50},
}
_SCHEDULE = {
    "end_epoch": "num_pruning_active_epochs",
    "update_frequency": "pruning_update_frequency",
    "mask_type": "mask_type",
}
_GRADUAL = {
    **_SCHEDULE,
    "init_sparsity": "pruning_init_sparsity",
    "final_sparsity": "pruning_final_sparsity",
}
_SAMPLED = {**_GRADUAL, **{n: n for n in ("global_sparsity", "num_grads", "fisher_block_size")}}
_PHASED = {"compression_sparsity": "pruning_final_sparsity", "global_sparsity": "global_sparsity"}
_PRUNERS: dict[str, tuple[str, dict[str, str]]] = {
    "constant": ("ConstantPruningModifier", {}),
    "acdc": ("ACDCPruningModifier", {**_SCHEDULE, **_PHASED}),
    "gmp": ("MagnitudePruningModifier", _GRADUAL),
    "movement": ("MovementPruningModifier", _GRADUAL),
    "mfac": ("MFACPruningModifier", _SAMPLED),
    "obs": ("OBSPruningModifier", _SAMPLED),
}
"""Class of each kind of pruning, and its fields with the variables that they are set to."""
_TRAINING = """training_modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: eval(num_epochs)

  - !{name}
    start_epoch: 0.0
{fields}"""
_RATE_FUNCTION = """    end_epoch: eval(num_epochs)
    lr_func: eval(lr_func)
    init_lr: eval(init_lr)
    final_lr: eval(final_lr)"""
_RATE_SCHEDULE = """    init_lr: eval(init_lr)
    lr_class: {}
    lr_kwargs:
      gamma: {}"""
_PRUNING = """pruning_modifiers:
  - !{name}
    params:{params}
    start_epoch: 0.0{fields}"""
_QUANTIZATION = """quantization_modifiers:
  - !QuantizationModifier
    start_epoch: eval(num_epochs - num_qat_epochs)
    submodules: eval(quantization_submodules)
    disable_quantization_observer_epoch: eval(num_epochs - num_qat_finetuning_epochs)
    freeze_bn_stats_epoch: eval(num_epochs - num_qat_finetuning_epochs)"""
_DISTILLATION = """distillation_modifiers:
  - !DistillationModifier
    start_epoch: 0.0
    end_epoch: eval(num_epochs)
    hardness: eval(distillation_hardness)
    temperature: eval(distillation_temperature)"""
_DESCRIPTION = """
# A recipe to start from

It was written by sparseml.pytorch.recipe_template. The variables at the top are what to adapt to a
model and its training: epochs and learning rates first, then how sparse the model becomes.
`sparseml recipe check` shows what the recipe will do.
"""


def recipe_template(
    pruning: str | bool | None = None,
    quantization: bool | str = False,
    lr: str = "linear",
    mask_type: str = "unstructured",
    global_sparsity: bool = True,
    target: str | None = None,
    model: str | nn.Module | None = None,
    file_name: str | os.PathLike[str] | None = None,
    num_epochs: float = 20.0,
    init_lr: float = 0.001,
    final_lr: float = 0.0,
    sparsity: float = 0.8,
    distillation: bool = False,
    hardness: float = 0.5,
    temperature: float = 2.0,
) -> str:
    """Return a recipe to start from, whose variables are what to adapt.

    Pruning takes half of the epochs that quantization leaves, training the pruned model the rest.

    :param pruning: one of ``PRUNING_KINDS``, True for magnitude, None for nothing; False keeps
        zeros at zero where the model is quantized
    :param quantization: whether to quantize at the end
    :param lr: one of ``LR_FUNCTIONS``
    :param mask_type: ``block4`` for the target vnni, ``2:4`` for tensorrt, else ``unstructured``
    :param global_sparsity: rank the weights of all layers together
    :param target: what the model will run on: vnni, tensorrt or None
    :param model: a model, or a path of one in TorchScript, whose layers the recipe shall name,
        except for those with ``input`` or ``output`` in their names
    :param file_name: the file to write, too; ``.md`` with a description
    :param sparsity: fraction of zeros in the end
    :param distillation: whether a teacher helps, with ``hardness`` and ``temperature``
    :raises ValueError: for a value that is not offered, or does not go with another
    """
    quantized = _as_flag("quantization", quantization)
    kind = _pruning_kind(pruning, quantized)
    _check_choices(lr, mask_type, target, kind, global_sparsity)
    qat_epochs = _qat_epochs(quantized, num_epochs)
    variables: dict[str, Any] = {"lr_func": "cyclic_linear" if lr == "cyclic" else lr}
    variables |= {"init_lr": init_lr, "final_lr": final_lr, "num_epochs": num_epochs}
    groups = [_training(lr, num_epochs)]
    if quantized:
        variables |= {"num_qat_epochs": qat_epochs, "num_qat_finetuning_epochs": qat_epochs / 2}
        variables |= {"quantization_submodules": None}
    if kind:
        chosen = {"mask_type": mask_type, "global_sparsity": global_sparsity}
        variables |= _pruning_variables(kind, num_epochs - qat_epochs, sparsity, chosen)
        groups.append(_pruning(kind, global_sparsity, _params(model)))
    if quantized:
        groups.append(_QUANTIZATION)
    if _as_flag("distillation", distillation):
        variables |= {"distillation_hardness": hardness, "distillation_temperature": temperature}
        groups.append(_DISTILLATION)
    text = "\n\n".join([_written(variables), *groups]) + "\n"
    if file_name:
        _save(file_name, text)
    return text


def _written(variables: Mapping[str, Any]) -> str:
    lines = [f"{name}: {'null' if value is None else value}" for name, value in variables.items()]
    return "\n".join(lines)


def _save(file_name: str | os.PathLike[str], text: str) -> None:
    path = Path(clean_path(file_name))
    create_parent_dirs(path)
    filed = f"---\n{text}---\n{_DESCRIPTION}" if path.suffix == ".md" else text
    path.write_text(filed, encoding="utf-8")


def _as_flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise ValueError(f"{name} must be True or False, found {value!r}")


def _pruning_kind(pruning: Any, quantized: bool) -> str:
    """Return one of ``gmp``, ``acdc``, ... or an empty text for no pruning."""
    if pruning is None or pruning == "":
        return ""
    word = str(pruning).lower().replace("/", "")
    if not isinstance(pruning, (str, bool)) or word not in PRUNING_KINDS:
        hint = did_you_mean(word, PRUNING_KINDS)
        raise ValueError(f"pruning must be {quoted_list(PRUNING_KINDS)}, found {pruning!r}{hint}")
    if word == "false":
        return "constant" if quantized else ""
    return "gmp" if word == "true" else word


def _check_choices(
    lr: str, mask_type: str, target: str | None, kind: str, global_sparsity: bool
) -> None:
    if lr not in LR_FUNCTIONS:
        hint = did_you_mean(str(lr), LR_FUNCTIONS)
        raise ValueError(f"lr must be {quoted_list(LR_FUNCTIONS)}, found {lr!r}{hint}")
    fitting = MASK_TYPES.get(str(target).lower(), "unstructured")
    if mask_type != fitting:
        goes = f"{fitting!r} for the target {target}"
        raise ValueError(f"mask_type must be {goes}, not {mask_type!r}")
    if kind == "movement" and global_sparsity:
        raise ValueError("movement pruning has no global_sparsity: it must be False")


def _params(model: str | nn.Module | None) -> str:
    """Return which parameters to prune, as it stands behind the colon."""
    if model is None:
        return " __ALL_PRUNABLE__"
    net: Any = model
    if not isinstance(net, nn.Module):
        net = torch.jit.load(clean_path(net), map_location="cpu")
    if isinstance(net, torch.jit.ScriptModule):
        kinds = ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d")
        found = net.named_modules()
        layers = [each for each in found if getattr(each[1], "original_name", "") in kinds]
    else:
        layers = get_prunable_layers(net)
    names = [name for name, _ in layers if "input" not in name and "output" not in name]
    weights = [f"{name}.weight" if name else "weight" for name in names]
    return "".join(f"\n      - {weight}" for weight in weights) or " []"


def _qat_epochs(quantized: bool, num_epochs: float) -> float:
    epochs = (5.0 if num_epochs >= 15 else 2.0) if quantized else 0.0
    if num_epochs <= epochs:
        raise ValueError(f"quantization takes {epochs:g} epochs: num_epochs must be more")
    return epochs


def _training(lr: str, num_epochs: float) -> str:
    name, fields = "LearningRateFunctionModifier", _RATE_FUNCTION
    if lr == "constant":
        name, fields = "SetLearningRateModifier", "    learning_rate: eval(init_lr)"
    elif lr == "stepped":
        milestones = [round(num_epochs / 2, 4), round(num_epochs * 3 / 4, 4)]
        name, fields = "LearningRateModifier", _RATE_SCHEDULE.format("MultiStepLR", 0.1)
        fields += f"\n      milestones: {milestones}"
    elif lr == "exponential":
        name, fields = "LearningRateModifier", _RATE_SCHEDULE.format("ExponentialLR", 0.9)
    return _TRAINING.format(name=name, fields=fields)


def _pruning_variables(
    kind: str, epochs: float, sparsity: float, chosen: dict[str, Any]
) -> dict[str, Any]:
    active = epochs / 2
    frequency: float = 1.0 if active > 20 else active / 20
    if kind == "acdc":
        # its phases take whole epochs
        active, frequency = float(max(int(active), 1)), 1.0
    second_order = dict(_SECOND_ORDER.get(kind, {}))
    if kind == "obs" and chosen["mask_type"] != "unstructured":
        second_order["fisher_block_size"] = 52  # whole groups of four
    return {
        "num_pruning_active_epochs": active,
        "num_pruning_finetuning_epochs": epochs - active,
        "pruning_init_sparsity": min(0.05, sparsity),
        "pruning_final_sparsity": sparsity,
        "pruning_update_frequency": frequency,
        **chosen,
        "_num_pruning_epochs": "eval(num_pruning_active_epochs + num_pruning_finetuning_epochs)",
        **second_order,
    }


def _pruning(kind: str, global_sparsity: bool, params: str) -> str:
    name, fields = _PRUNERS[kind]
    if kind == "gmp" and global_sparsity:
        name = f"Global{name}"
    lines = [f"\n    {field}: eval({variable})" for field, variable in fields.items()]
    return _PRUNING.format(name=name, params=params, fields="".join(lines))
