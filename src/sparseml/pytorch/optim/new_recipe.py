"""Recipes made for a model: what of it to prune is found in the model itself."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping

from torch import nn
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.sparsification.fields import one_of
from sparseml.pytorch.sparsification.param_selection import select_params
from sparseml.pytorch.sparsification.pruning.settings.effort import PRESETS
from sparseml.pytorch.sparsification.pruning.structured.goals import as_final_or_goal, names_goals
from sparseml.pytorch.units.probing import sample_inputs
from sparseml.pytorch.units.removable import removable_units
from sparseml.pytorch.utils.params import (
    NamedLayerParam,
    get_named_layers_and_params_by_regex,
    prunable_params,
)
from sparseml.utils.constants import STRUCTURED_TOKEN
from sparseml.utils.text import did_you_mean

STRUCTURED = "structured"
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
    STRUCTURED: (
        "StructuredPruningModifier",
        {"num_grads": "64"},
        {"score": "taylor", "remove": "True"},
    ),
}
"""What a method is called → its modifier, fields that are variables of the recipe, and others."""
_TRAINING = """
# The learning rate is that of the training (--lr of sparseml train, about that of a fine-tuning),
# unless a LearningRateFunctionModifier stands here, too.
training_modifiers:
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: eval(num_epochs)
"""
_COLOURS = 4  # channels of an image, at most
_UPDATES, _REMOVALS = 15, 5  # of masks in a gradual recipe, and of units, each with gradients anew
_TUNING = 0.25  # the share of the epochs in which masks are fixed
_SMALLER = 0.6  # that in which a model trains that has lost units


def params_to_prune(model: nn.Module, exclude: Iterable[str] = ()) -> list[str]:
    """Return what people prune of a model: the weights of the layers in its blocks.

    Blocks are found by their names, which repeat but for numbers. The layers that read the input
    and give the output stay dense, as do depthwise convolutions, which have few weights and need
    them. A model without blocks loses weights in all layers but the last.

    :param exclude: names of further parameters to leave dense
    :return: entries for ``params`` of a modifier: patterns where they match nothing else
    :raises ValueError: if nothing is left, or a name to exclude is none
    """
    found = [one for one in prunable_params(model) if not _stays(one.layer)]
    every = _prunable(model)
    for name in (exclude := list(exclude)):
        if name not in every:
            hint = did_you_mean(name, every)
            raise ValueError(f"exclude names {name!r}, which is no weight to prune{hint}")
    counts = Counter(map(_pattern, (one.name for one in found)))
    inner = [one for one in found if counts[_pattern(one.name)] > 1 and _in_block(one)]
    chosen = {one.name for one in inner or found[:-1]} - set(exclude)
    if not chosen:
        raise ValueError(
            f"the model has no layers to prune but {', '.join(every)}, which stay dense; "
            "name them in params"
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
    goal: Mapping[str, float] | None = None,
) -> str:
    """Return the text of a recipe that prunes a model.

    :param method: one of :data:`METHODS`
    :param sparsity: the fraction of the weights of the pruned layers that are zero in the end; with
        ``structured`` that of the filters, neurons and heads of each layer that are removed
    :param epochs: of a gradual recipe, in the last quarter of which masks are fixed, or in the last
        six tenths of which a model trains that has lost units; None for a recipe that prunes in one
        shot. The learning rate is left to the training
    :param exclude: names of parameters to leave dense
    :param effort: one of :data:`~sparseml.pytorch.sparsification.pruning.settings.effort.PRESETS`,
        of the methods that have it: a variable of the recipe
    :param goal: with ``structured``, in place of a sparsity: ``{"speedup": 2.0}``, or the share to
        keep as ``{"params": 0.5}`` or ``{"flops": 0.5}``
    :raises ValueError: for an unknown method or effort, a sparsity, a goal or epochs out of range,
        and a model without layers to prune, or units to remove
    """
    aims = how_much(method, sparsity, epochs, goal)
    modifier, variables, others = METHODS[method]
    if "effort" in variables:
        variables = {**variables, "effort": one_of(PRESETS)("effort", effort)}
    head = {} if epochs is None else {"num_epochs": repr(float(epochs))}
    final = "eval(sparsity)" if goal is None else "".join(f"{{{key}: eval({key})}}" for key in aims)
    fields = {
        **_schedule(final, method == STRUCTURED, epochs is not None),
        **others,
        **{key: f"eval({key})" for key in variables},
    }
    lines = [
        *(f"{key}: {value}" for key, value in {**head, **aims, **variables}.items()),
        *("" if epochs is None else _TRAINING).splitlines(),
        *("", "pruning_modifiers:", f"  - !{modifier}"),
        *_selected(model, method, list(exclude)),
        *(f"      {key}: {value}" for key, value in fields.items()),
    ]
    return "\n".join(lines) + "\n"


def how_much(
    method: str,
    sparsity: float = 0.5,
    epochs: float | None = None,
    goal: Mapping[str, float] | None = None,
) -> dict[str, str]:
    """Return the variable of a recipe that says how much goes, with its value.

    The arguments and errors are those of :func:`new_recipe`, as far as no model is needed.
    """
    if method not in METHODS:
        hint = did_you_mean(method, METHODS)
        raise ValueError(f"method must be one of {', '.join(METHODS)}, found {method!r}{hint}")
    if not 0.0 < sparsity < 1.0:
        raise ValueError(f"sparsity must lie strictly between 0 and 1, found {sparsity}")
    if epochs is not None and not 0 < epochs < math.inf:
        raise ValueError(f"epochs must be a number above 0, found {epochs}")
    if goal is None:
        return {"sparsity": f"{sparsity:g}"}
    if method != STRUCTURED:
        raise ValueError(f"a goal needs method: {STRUCTURED}, found {method}")
    if not names_goals(goal):
        raise ValueError(f"a goal is a mapping such as {{'speedup': 2.0}}, found {goal!r}")
    return {key: f"{value:g}" for key, value in as_final_or_goal("the recipe", goal).items()}


def _schedule(final: str, structured: bool, gradual: bool) -> _Fields:
    """Return when how much is pruned."""
    start, end, frequency = "eval(sparsity)", "1.0", "1.0"
    if gradual:
        share = 1 - (_SMALLER if structured else _TUNING)
        start, end = "0.05", f"eval(num_epochs * {share:g})"
        updates = _REMOVALS if structured else _UPDATES
        frequency = f"eval(num_epochs * {share:g} / {updates})"
    return {
        "init_sparsity": "0.0" if structured else start,
        "final_sparsity": final,
        "start_epoch": "0.0",
        "end_epoch": end,
        "update_frequency": frequency,
    }


def _selected(model: nn.Module, method: str, exclude: list[str]) -> list[str]:
    """Return the lines that say what is pruned."""
    if method != STRUCTURED:
        entries = params_to_prune(model, exclude)
        return ["      params:", *(f"        - '{entry}'" for entry in entries)]
    try:
        select_params(model, exclude, strict=bool(exclude))
    except RuntimeError as error:
        raise ValueError(f"exclude: {error}") from error
    _require_units(model)
    left = [f"        - '{name}'" for name in exclude]
    return [f"      params: {STRUCTURED_TOKEN}", *(["      exclude:", *left] if left else [])]


def _require_units(model: nn.Module) -> None:
    """Check that a model has units to remove, if it says what it takes, so that it can be run.

    :raises ValueError: if there are none
    """
    _prunable(model)
    try:
        sample_inputs(model)
    except ValueError:
        return
    removable_units(model)


def _prunable(model: nn.Module) -> list[str]:
    names = [one.name for one in prunable_params(model)]
    if not names:
        raise ValueError("the model has no linear, convolution or embedding layers to prune")
    return names


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
