"""What a recipe will do, and what stays dense when it has, found out by asking its modifiers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from sparseml.optim.modifier import BaseScheduled
from sparseml.optim.schedule import MOST_STEPS, ONE_SHOT, PlannedUpdate
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import GaPPruningModifier
from sparseml.pytorch.sparsification.modifier import Modifier, ScheduledModifier
from sparseml.pytorch.sparsification.planning import Prunes, asked_sparsities
from sparseml.pytorch.utils.layers import get_prunable_layers
from sparseml.pytorch.utils.params import NamedLayerParam, distinct_params
from sparseml.sparsification.types import SparsificationTypes

ASSUMED_STEPS_PER_EPOCH = 100

Plan = dict[str, Any]

_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def plan(
    manager: ScheduledModifierManager, steps_per_epoch: int | None, epochs: int | None = None
) -> Plan:
    """Return when each modifier acts, and what sparsity it then asks for, as plain data.

    :param manager: of the recipe; schedules in steps are resolved
    :param steps_per_epoch: optimizer steps in an epoch; None to assume some
    :param epochs: of the run; None for as many as the recipe asks for
    :raises ValueError: if the steps of an epoch are needed and not given, there are too many steps,
        or a schedule does not hold with them
    """
    per_epoch = steps_per_epoch or ASSUMED_STEPS_PER_EPOCH
    in_steps = [m for m in manager.iter_modifiers() if isinstance(m, BaseScheduled) and m.has_steps]
    if in_steps and steps_per_epoch is None:
        raise ValueError(
            f"the schedule of {type(in_steps[0]).__name__} is given in optimizer steps; "
            "say how many make an epoch with --steps-per-epoch"
        )
    manager.resolve_steps(per_epoch)
    epochs = manager.max_epochs if epochs is None else epochs
    steps = max(1, epochs) * per_epoch
    if steps > MOST_STEPS:
        raise ValueError(
            f"{epochs:.6g} epochs of {per_epoch} optimizer steps are too many to go through "
            f"(at most {MOST_STEPS} steps in all); "
            "give a smaller --steps-per-epoch"
        )
    return {
        "steps_per_epoch": per_epoch,
        "steps_per_epoch_assumed": steps_per_epoch is None,
        "epochs": epochs,
        "modifiers": [
            {"stage": stage, **_modifier_plan(modifier, per_epoch, steps)}
            for stage, modifier in manager.iter_staged_modifiers()
        ],
    }


def last_update(entry: Plan) -> Plan | None:
    """Return the last update of a modifier that a run gets to, if there is one."""
    within = [update for update in entry.get("updates", []) if "after_training" not in update]
    return within[-1] if within else None


def last_of(update: Plan, key: str) -> Any:
    """Return an epoch, step or sparsity of an update, of several on end that of the last."""
    return update[f"until_{key}" if f"until_{key}" in update else key]


def _modifier_plan(modifier: Modifier, per_epoch: int, steps: int) -> Plan:
    found: Plan = {
        "modifier": type(modifier).__name__,
        "fields": modifier.props(only_serializable=True),
    }
    if inert := getattr(modifier, "inert", None):
        return {**found, "inert": inert}
    if aim := getattr(modifier, "aim", ""):  # a goal, of which a sparsity is a part of the way
        found["aim"] = aim
    if needs := modifier.needs():
        found["needs"] = needs
    if isinstance(modifier, ScheduledModifier):
        # a loop of so many epochs never takes the step that comes after it
        updates = (
            update
            for update in modifier.schedule.updates(per_epoch, steps + 1)
            if update.step < steps or update.starts or update.ends
        )
        found["updates"] = [
            _entry(modifier, stretch, per_epoch, steps) for stretch in _stretches(updates)
        ]
    if isinstance(modifier, Prunes):
        found["one_shot_sparsity"] = _sparsity(modifier, ONE_SHOT, 1)
    if isinstance(modifier, ScheduledModifier):
        found |= _missed(modifier, found, steps / per_epoch)
    return found


def _missed(modifier: ScheduledModifier, found: Plan, epochs: float) -> Plan:
    """Return what a modifier will not get to in a run of so many epochs, if anything."""
    if SparsificationTypes.epoch in modifier.sparsification_types:
        return {}
    last = last_update(found)
    if last is None:
        return {"never_acts": True}
    if late := [epoch for epoch in modifier.schedule.also if epoch >= epochs]:
        return {"late_updates": late}
    if isinstance(modifier, Prunes):
        if last["kind"].endswith("end") and not getattr(modifier, "leave_enabled", True):
            return {"frees_at": last["epoch"]}
        reached, final = last_of(last, "sparsity"), found["one_shot_sparsity"]
        missed = reached is not None and reached != final
        return {"reaches": {"sparsity": reached, "final_sparsity": final}} if missed else {}
    share = modifier.share_at(last_of(last, "epoch"))
    return {} if share == 1.0 else {"reaches": {"share": share}}


def _stretches(updates: Iterable[PlannedUpdate]) -> Iterator[list[PlannedUpdate]]:
    """Yield updates on successive steps in one piece, but a start and an end on their own."""
    stretch: list[PlannedUpdate] = []
    for update in updates:
        last = stretch[-1] if stretch else None
        if last and (last.starts or update.ends or update.step != last.step + 1):
            yield stretch
            stretch = []
        stretch = [*stretch[:1], update]
    if stretch:
        yield stretch


def _entry(
    modifier: ScheduledModifier, stretch: list[PlannedUpdate], per_epoch: int, steps: int
) -> Plan:
    first, last = stretch[0], stretch[-1]
    kind = " and ".join(["start"] * first.starts + ["end"] * first.ends) or "update"
    entry: Plan = {"kind": kind, "step": first.step, "epoch": first.epoch}
    if last is not first:
        entry.update(kind="every step", until_step=last.step, until_epoch=last.epoch)
    if first.step >= steps:
        entry["after_training"] = True
    if isinstance(modifier, GaPPruningModifier):
        entry["dense"] = modifier.phase_at(first.epoch)
    if isinstance(modifier, Prunes):
        entry["sparsity"] = _sparsity(modifier, first.epoch, per_epoch)
        if last is not first:
            entry["until_sparsity"] = _sparsity(modifier, last.epoch, per_epoch)
    return entry


def _sparsity(
    modifier: Prunes, epoch: float, steps_per_epoch: int
) -> float | list[float | None] | None:
    """Return the sparsity that the modifier would ask for: one number if it is the same for all."""
    found = asked_sparsities(modifier, epoch, steps_per_epoch)
    return found[0] if len(set(found)) == 1 else found


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
        sparsities = modifier.sparsities_at(model, epoch)
        for owned, sparsity in zip(modifier.selects(model), sparsities, strict=True):
            both = into.get(id(owned.param)), sparsity
            into[id(owned.param)] = max(both, key=lambda one: -1.0 if one is None else one)
    # what one frees another may keep
    kept = {id_: freed.get(id_) for id_, sparsity in held.items() if sparsity is None}
    return {**dict.fromkeys(freed, 0.0), **held, **kept}


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
