"""What a recipe will do, found out by asking its modifiers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sparseml.optim.modifier import BaseScheduled
from sparseml.optim.schedule import MOST_STEPS, ONE_SHOT, PlannedUpdate
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.modifier import Modifier, ScheduledModifier
from sparseml.pytorch.sparsification.planning import Prunes, asked_sparsities
from sparseml.sparsification.types import SparsificationTypes

__all__ = ["Plan", "last_of", "last_update", "plan"]

ASSUMED_STEPS_PER_EPOCH = 100

Plan = dict[str, Any]


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
