"""Recipes to start from."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseml.pytorch.utils.layers import get_prunable_layers
from sparseml.utils.paths import clean_path, create_parent_dirs
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = ["recipe_template"]

Fields = dict[str, Any]
Item = tuple[str, Fields]

PRUNING_KINDS = ("true", "false", "gmp", "acdc", "mfac", "movement", "obs", "constant")
"""What ``pruning`` may be, besides True, False and None."""
LR_FUNCTIONS = (
    "linear", "cosine", "cyclic_linear", "cyclic", "constant", "stepped", "exponential",
)  # fmt: skip
_LR_NAMES = {"cyclic": "cyclic_linear"}
MASK_TYPES = {"vnni": "block4", "tensorrt": "2:4"}
"""The pattern that a target computes faster."""
_SECOND_ORDER = {
    "mfac": {"num_grads": 64, "fisher_block_size": 10000},
    "obs": {"num_grads": 1024, "fisher_block_size": 50},
}
_GRADUAL = {
    "mfac": "MFACPruningModifier",
    "movement": "MovementPruningModifier",
    "obs": "OBSPruningModifier",
}
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

    Pruning takes half of the epochs that quantization leaves, training the pruned model the other
    half.

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
    :param num_epochs: epochs of the whole run
    :param init_lr: the first learning rate, as ``final_lr`` is the last
    :param sparsity: fraction of zeros in the end
    :param distillation: whether a teacher helps, with ``hardness`` and ``temperature``
    :raises ValueError: for a value that is not offered, or does not go with another
    """
    quantized = _as_flag("quantization", quantization)
    kind = _pruning_kind(pruning, quantized)
    _check_choices(lr, mask_type, target, kind, global_sparsity)
    epochs = num_epochs - _qat_epochs(quantized, num_epochs)
    rates: Fields = {"init_lr": init_lr, "final_lr": final_lr}
    variables = {"lr_func": _LR_NAMES.get(lr, lr), **rates, "num_epochs": num_epochs}
    groups: dict[str, list[Item]] = {"training_modifiers": _training(lr, num_epochs)}
    if quantized:
        variables |= _quantization_variables(num_epochs - epochs)
    if kind:
        chosen = {"mask_type": mask_type, "global_sparsity": global_sparsity}
        variables |= _pruning_variables(kind, epochs, sparsity, chosen)
        groups["pruning_modifiers"] = [_pruning(kind, global_sparsity, _params(model))]
    if quantized:
        groups["quantization_modifiers"] = [_quantization()]
    if _as_flag("distillation", distillation):
        variables |= {"distillation_hardness": hardness, "distillation_temperature": temperature}
        groups["distillation_modifiers"] = [_distillation()]
    text = _written(variables, groups)
    if file_name:
        _save(file_name, text)
    return text


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
        raise ValueError(
            f"mask_type must be {fitting!r} for the target {target}, not {mask_type!r}"
        )
    if kind == "movement" and global_sparsity:
        raise ValueError("movement pruning has no global_sparsity: it must be False")


def _eval(expression: str) -> str:
    return f"eval({expression})"


def _params(model: str | nn.Module | None) -> str | list[str]:
    if model is None:
        return "__ALL_PRUNABLE__"
    net: Any = model
    if not isinstance(net, nn.Module):
        net = torch.jit.load(clean_path(net), map_location="cpu")
    if isinstance(net, torch.jit.ScriptModule):
        kinds = ("Linear", "Embedding", "Conv1d", "Conv2d", "Conv3d")
        layers = [
            (name, layer)
            for name, layer in net.named_modules()
            if getattr(layer, "original_name", "") in kinds
        ]
    else:
        layers = get_prunable_layers(net)
    names = [name for name, _ in layers if "input" not in name and "output" not in name]
    return [f"{name}.weight" if name else "weight" for name in names]


def _training(lr: str, num_epochs: float) -> list[Item]:
    span: Fields = {"start_epoch": 0.0, "end_epoch": _eval("num_epochs")}
    stepwise = {"start_epoch": 0.0, "init_lr": _eval("init_lr")}
    item: Item
    if lr == "constant":
        item = "SetLearningRateModifier", {"start_epoch": 0.0, "learning_rate": _eval("init_lr")}
    elif lr == "stepped":
        milestones = [round(num_epochs / 2, 4), round(num_epochs * 3 / 4, 4)]
        kwargs: Fields = {"gamma": 0.1, "milestones": milestones}
        item = "LearningRateModifier", {**stepwise, "lr_class": "MultiStepLR", "lr_kwargs": kwargs}
    elif lr == "exponential":
        kwargs = {"gamma": 0.9}
        item = (
            "LearningRateModifier",
            {**stepwise, "lr_class": "ExponentialLR", "lr_kwargs": kwargs},
        )
    else:
        names = ("lr_func", "init_lr", "final_lr")
        item = "LearningRateFunctionModifier", {**span, **{name: _eval(name) for name in names}}
    return [("EpochRangeModifier", span), item]


def _qat_epochs(quantized: bool, num_epochs: float) -> float:
    epochs = (5.0 if num_epochs >= 15 else 2.0) if quantized else 0.0
    if num_epochs <= epochs:
        raise ValueError(f"quantization takes {epochs:g} epochs: num_epochs must be more")
    return epochs


def _quantization_variables(epochs: float) -> Fields:
    return {
        "num_qat_epochs": epochs,
        "num_qat_finetuning_epochs": epochs / 2,
        "quantization_submodules": None,
    }


def _pruning_variables(kind: str, epochs: float, sparsity: float, chosen: Fields) -> Fields:
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
        "_num_pruning_epochs": _eval("num_pruning_active_epochs + num_pruning_finetuning_epochs"),
        **second_order,
    }


def _pruning(kind: str, global_sparsity: bool, params: str | list[str]) -> Item:
    fields: Fields = {"params": params, "start_epoch": 0.0}
    if kind == "constant":
        return "ConstantPruningModifier", fields
    fields["end_epoch"] = _eval("num_pruning_active_epochs")
    fields["update_frequency"] = _eval("pruning_update_frequency")
    fields["mask_type"] = _eval("mask_type")
    if kind == "acdc":
        fields["compression_sparsity"] = _eval("pruning_final_sparsity")
        fields["global_sparsity"] = _eval("global_sparsity")
        return "ACDCPruningModifier", fields
    fields["init_sparsity"] = _eval("pruning_init_sparsity")
    fields["final_sparsity"] = _eval("pruning_final_sparsity")
    if kind == "gmp":
        name = "GlobalMagnitudePruningModifier" if global_sparsity else "MagnitudePruningModifier"
        return name, fields
    if kind in _SECOND_ORDER:
        fields["global_sparsity"] = _eval("global_sparsity")
        fields |= {name: _eval(name) for name in _SECOND_ORDER[kind]}
    return _GRADUAL[kind], fields


def _quantization() -> Item:
    return "QuantizationModifier", {
        "start_epoch": _eval("num_epochs - num_qat_epochs"),
        "submodules": _eval("quantization_submodules"),
        "disable_quantization_observer_epoch": _eval("num_epochs - num_qat_finetuning_epochs"),
        "freeze_bn_stats_epoch": _eval("num_epochs - num_qat_finetuning_epochs"),
    }


def _distillation() -> Item:
    return "DistillationModifier", {
        "start_epoch": 0.0,
        "end_epoch": _eval("num_epochs"),
        "hardness": _eval("distillation_hardness"),
        "temperature": _eval("distillation_temperature"),
    }


def _scalar(value: Any) -> str:
    return "null" if value is None else str(value)


def _lines(fields: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, value in fields.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {line}" for line in _lines(value))]
        elif isinstance(value, list) and value and isinstance(value[0], str):
            lines += [f"{name}:", *(f"  - {one}" for one in value)]
        else:
            lines.append(f"{name}: {_scalar(value)}")
    return lines


def _written(variables: Fields, groups: Mapping[str, list[Item]]) -> str:
    parts = ["\n".join(_lines(variables))]
    for name, items in groups.items():
        texts = [
            "\n".join([f"  - !{clazz}", textwrap.indent("\n".join(_lines(fields)), " " * 4)])
            for clazz, fields in items
        ]
        parts.append(f"{name}:\n" + "\n\n".join(texts))
    return "\n\n".join(parts) + "\n"


def _save(file_name: str | os.PathLike[str], text: str) -> None:
    path = Path(clean_path(file_name))
    create_parent_dirs(path)
    if path.suffix == ".md":
        text = f"---\n{text}---\n{_DESCRIPTION}"
    path.write_text(text, encoding="utf-8")
