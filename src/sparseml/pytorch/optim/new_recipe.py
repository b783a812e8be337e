"""Recipes made for a model: what of it to prune is found in the model itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from torch import nn
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.sparsification.fields import one_of
from sparseml.pytorch.sparsification.pruning.settings.effort import PRESETS
from sparseml.pytorch.utils.params import (
    NamedLayerParam,
    get_named_layers_and_params_by_regex,
    prunable_params,
)
from sparseml.utils.text import did_you_mean

_GRADIENTS = {"num_grads": "1024"}
_EFFORT = {"effort": "balanced"}
_FLOOR = {"layer_floor": "0.05"}
_GLOBAL = {"global_sparsity": "True"}
_Fields = dict[str, str]
METHODS: dict[str, tuple[str, _Fields, _Fields]] = {
    "magnitude": ("GlobalMagnitudePruningModifier", {}, _FLOOR),
    "uniform": ("MagnitudePruningModifier", {}, {}),
    "gw": ("GWProdPruningModifier", _GRADIENTS, {}),
    "cap": ("CAPruningModifier", _EFFORT, _GLOBAL),
    "fast_cap": ("FastCAPruningModifier", _EFFORT, {}),
    "obs": ("OBSPruningModifier", _EFFORT, _GLOBAL),
    "mfac": ("MFACPruningModifier", _EFFORT, {**_GLOBAL, "use_gradient_buffering": "False"}),
}
"""What a method is called → its modifier, fields that are variables of the recipe, and others."""
_TRAINING = """
training_modifiers:
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: eval(num_epochs)
"""
_COLOURS = 4  # channels of an image, at most
_UPDATES = 15  # of masks, in a gradual recipe
_TUNING = 0.25  # the share of the epochs in which masks are fixed


def params_to_prune(model: nn.Module, exclude: Iterable[str] = ()) -> list[str]:
    """Return what people prune of a model: the weights of the layers in its blocks.

    Blocks are found by their names, which repeat but for numbers. The layers that read the input
    and give the output stay dense, as do depthwise convolutions, which have few weights and need
    them. A model without blocks loses weights in all layers but the last.

    :param exclude: names of further parameters to leave dense
    :return: entries for ``params`` of a modifier: patterns where they match nothing else
    :raises ValueError: if nothing is left
    """
    found = [one for one in prunable_params(model) if not _stays(one.layer)]
    every = [one.name for one in prunable_params(model)]
    counts = Counter(map(_pattern, (one.name for one in found)))
    inner = [one for one in found if counts[_pattern(one.name)] > 1 and _in_block(one)]
    chosen = {one.name for one in inner or found[:-1]} - set(exclude)
    if not chosen:
        raise ValueError(
            f"the model has no layers to prune but {', '.join(every) or 'none'}, which stay "
            "dense; name them in params"
        )
    entries: list[str] = []
    for pattern in dict.fromkeys(_pattern(name) for name in every if name in chosen):
        own = [name for name in every if name in chosen and _pattern(name) == pattern]
        matched = get_named_layers_and_params_by_regex(model, [f"re:{pattern}$"])
        exact = len(own) > 1 and {one.name for one in matched} == set(own)
        entries += [f"re:{pattern}$"] if exact else own
    return entries


def new_recipe(
    model: nn.Module,
    method: str = "magnitude",
    sparsity: float = 0.5,
    epochs: float | None = None,
    exclude: Iterable[str] = (),
    effort: str = "balanced",
) -> str:
    """Return the text of a recipe that prunes a model.

    :param method: one of :data:`METHODS`
    :param sparsity: the fraction of the weights of the pruned layers that are zero in the end
    :param epochs: of a gradual recipe, in the last quarter of which masks are fixed; None for a
        recipe that prunes in one shot. The learning rate is left to the training
    :param exclude: names of parameters to leave dense
    :param effort: one of :data:`~sparseml.pytorch.sparsification.pruning.settings.effort.PRESETS`,
        of the methods that have it: a variable of the recipe
    :raises ValueError: for an unknown method or effort, a sparsity or epochs out of range, and a
        model without layers to prune
    """
    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise ValueError(f"method must be one of {', '.join(METHODS)}, found {method!r}{hint}")
    if not 0.0 < sparsity < 1.0:
        raise ValueError(f"sparsity must lie strictly between 0 and 1, found {sparsity}")
    if epochs is not None and not epochs > 0:
        raise ValueError(f"epochs must be above 0, found {epochs}")
    modifier, variables, others = METHODS[method]
    if "effort" in variables:
        variables = {**variables, "effort": one_of(PRESETS)("effort", effort)}
    head, training = {"sparsity": f"{sparsity:g}", **variables}, ""
    start, end, frequency = "eval(sparsity)", "1.0", "1.0"
    if epochs is not None:
        head = {"num_epochs": repr(float(epochs)), **head}
        training = _TRAINING
        start, end = "0.05", f"eval(num_epochs * {1 - _TUNING:g})"
        frequency = f"eval(num_epochs * {1 - _TUNING:g} / {_UPDATES})"
    fields = {
        "init_sparsity": start,
        "final_sparsity": "eval(sparsity)",
        "start_epoch": "0.0",
        "end_epoch": end,
        "update_frequency": frequency,
        **others,
        **{key: f"eval({key})" for key in variables},
    }
    entries = (f"        - '{entry}'" for entry in params_to_prune(model, exclude))
    lines = [
        *(f"{key}: {value}" for key, value in head.items()),
        *training.splitlines(),
        *("", "pruning_modifiers:", f"  - !{modifier}", "      params:"),
        *entries,
        *(f"      {key}: {value}" for key, value in fields.items()),
    ]
    return "\n".join(lines) + "\n"


def _stays(layer: nn.Module) -> bool:
    """Whether a layer is a depthwise convolution, or reads an image."""
    if not isinstance(layer, _ConvNd):
        return False
    return layer.in_channels <= _COLOURS or 1 < layer.groups == layer.in_channels


def _pattern(name: str) -> str:
    return re.sub(r"\d+", r"\\d+", re.escape(name).replace(r"\_", "_"))


def _in_block(one: NamedLayerParam) -> bool:
    """Whether a layer lies in a numbered part, rather than being one itself."""
    *above, _ = one.layer_name.split(".")
    return any(part.isdigit() or re.search(r"\d$", part) for part in above)
