"""What stays dense when a recipe has been run, and how sparse the model is as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from sparseml.cli.recipe_plan import Plan, last_of, last_update
from sparseml.optim.schedule import ONE_SHOT
from sparseml.pytorch.sparsification.modifier import Modifier
from sparseml.pytorch.sparsification.planning import Prunes
from sparseml.pytorch.utils.layers import get_prunable_layers
from sparseml.pytorch.utils.params import NamedLayerParam, distinct_params

__all__ = ["coverage"]

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def coverage(modifiers: Sequence[Modifier], found: Sequence[Plan], model: nn.Module) -> Plan:
    """Return what no modifier prunes, and the sparsity that the recipe leads to, as plain data.

    ``not_selected`` are weights of prunable layers, ``by_name_only`` what no token reaches: other
    tensors with two dimensions or more, as the ``in_proj_weight`` of attention and the weights of
    an LSTM. The rest is counted by kind, what is ``pruned_rest``, as by ``re:.*weight``, as well.
    Where it takes the weights to tell, as of what a
    ConstantPruningModifier finds, ``unknown_weights`` counts them, and they count as dense.

    :param found: for each its entry in the plan
    :param model: it may be on the meta device
    """
    asked = _asked(modifiers, found, model)
    prunable = {id(layer.weight) for _, layer in get_prunable_layers(model)}
    dense: dict[str, list[Plan]] = {"not_selected": [], "by_name_only": []}
    rest: dict[bool, dict[str, Plan]] = {True: {}, False: {}}  # by whether it is pruned
    totals = dict.fromkeys(("weights", "zeros", "layer_weights", "layer_zeros", "unknown"), 0.0)
    for owned in distinct_params(model):
        size, sparsity = owned.param.numel(), asked.get(id(owned.param), 0.0)
        totals["weights"] += size
        totals["zeros"] += size * (sparsity or 0.0)
        totals["unknown"] += size if sparsity is None else 0
        kind = _kind(owned, id(owned.param) in prunable)
        if kind == "not_selected":
            totals["layer_weights"] += size
            totals["layer_zeros"] += size * (sparsity or 0.0)
        is_pruned = id(owned.param) in asked
        if kind not in dense:
            nothing = {"tensors": 0, "weights": 0, "first": owned.name}
            counts = rest[is_pruned].setdefault(kind, nothing)
            counts["tensors"] += 1
            counts["weights"] += size
        elif not is_pruned:
            layer = type(owned.layer).__name__
            dense[kind].append({"name": owned.name, "layer": layer, "weights": size})
    return {
        **dense,
        "rest": rest[False],
        "pruned_rest": rest[True],
        "weights": int(totals["weights"]),
        "layer_weights": int(totals["layer_weights"]),
        "unknown_weights": int(totals["unknown"]),
        "sparsity": totals["zeros"] / max(totals["weights"], 1),
        "layer_sparsity": totals["layer_zeros"] / max(totals["layer_weights"], 1),
    }


def _asked(
    modifiers: Sequence[Modifier], found: Sequence[Plan], model: nn.Module
) -> dict[int, float | None]:
    """Return parameter → its sparsity after the run; None if only the weights can tell."""
    held: dict[int, float | None] = {}
    freed: dict[int, float | None] = {}
    for modifier, entry in zip(modifiers, found, strict=True):
        if not isinstance(modifier, Prunes) or "one_shot_sparsity" not in entry:
            continue
        last = last_update(entry)
        if "updates" in entry and last is None:
            continue
        epoch = ONE_SHOT if last is None else last_of(last, "epoch")
        into = freed if "frees_at" in entry else held
        for id_, sparsity in _sparsities(modifier, model, epoch):
            into[id_] = max((into.get(id_), sparsity), key=lambda one: -1.0 if one is None else one)
    # what one frees another may keep
    kept = {id_: freed.get(id_) for id_, sparsity in held.items() if sparsity is None}
    return {**dict.fromkeys(freed, 0.0), **held, **kept}


def _sparsities(
    modifier: Prunes, model: nn.Module, epoch: float
) -> Iterator[tuple[int, float | None]]:
    selected = modifier.selects(model)
    for owned, sparsity in zip(selected, modifier.sparsities_at(model, epoch), strict=True):
        yield id(owned.param), sparsity


def _kind(owned: NamedLayerParam, prunable: bool) -> str:
    layer, name = owned.layer, owned.param_name
    if isinstance(layer, _EMBEDDINGS):
        return "embeddings"
    if prunable:
        return "not_selected"
    if isinstance(layer, _NORMS) or "Norm" in type(layer).__name__:
        return "norms"
    if sum(size > 1 for size in owned.param.shape) > 1:
        return "by_name_only"
    return "biases" if "bias" in name else "other vectors"
