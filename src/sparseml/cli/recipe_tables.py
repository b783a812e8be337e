"""The findings of ``sparseml recipe check`` as tables, and in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from sparseml.cli.recipe_phases import rows as phase_rows
from sparseml.cli.recipe_plan import Plan, last_of
from sparseml.cli.recipe_removals import notes as removal_notes
from sparseml.cli.recipe_removals import rows as removal_rows
from sparseml.cli.tables import table
from sparseml.optim.manager import SCHEDULE
from sparseml.utils.text import shown

MOST_ROWS = 12  # of one modifier, unless all are asked for

Rows = Iterable[tuple[str, ...]]

_HOW_TO_GIVE = {
    "grad_sampler": (
        "{'data_loader_builder': ..., 'loss_function': ...}, as `sparseml prune` and `sparseml "
        "train` do"
    ),
    "distillation_teacher": "MODEL or 'self', as `sparseml train --teacher MODEL` does",
}


def tables(plan: Plan, everything: bool) -> Iterator[str]:
    """Yield the tables as text.

    :param everything: leave out no update and no parameter
    """
    steps = plan["steps_per_epoch"]
    yield table("Modifiers", (">#", "modifier", "fields"), _modifiers(plan))
    yield table(
        f"Timeline, {steps} optimizer steps per epoch",
        (">epoch", ">step", ">#", "modifier", "acts", "sparsity"),
        _timeline(plan, everything),
    )
    if any(modifier.get("matches") for modifier in plan["modifiers"]):
        headings = (">#", "modifier", "pattern", ">tensors", ">weights")
        yield table("Matches", headings, _matches(plan))
    for number, modifier in enumerate(plan["modifiers"], start=1):
        if phases := modifier.get("phases"):
            columns = (">epoch", "what is dense", ">tensors", ">weights", ">density", "first")
            title = f"Steps of #{number}, density of what it prunes"
            yield table(title, columns, phase_rows(phases, None if everything else MOST_ROWS))
    for number, modifier in enumerate(plan["modifiers"], start=1):
        if removed := list(removal_rows(modifier.get("removes", {"unknown": ""}))):
            title, counts = f"What #{number} removes", (">places", ">before", ">after")
            yield table(title, ("what", *counts), removed)
    if rows := list(_dense(plan.get("coverage", {}), everything)):
        yield table("What stays dense", ("parameters", "of", ">tensors", ">weights"), rows)


def _name(plan: Plan, number: int) -> str:
    modifier = plan["modifiers"][number - 1]
    stage = f"{modifier['stage']}: " if modifier["stage"] else ""
    return f"{stage}{modifier['modifier']}"


def _modifiers(plan: Plan) -> Rows:
    for number, modifier in enumerate(plan["modifiers"], start=1):
        fields = {key: v for key, v in modifier["fields"].items() if key not in SCHEDULE}
        texts = (f"{key}={v if isinstance(v, str) else shown(v)}" for key, v in fields.items())
        yield str(number), _name(plan, number), ", ".join(texts)


def _timeline(plan: Plan, everything: bool) -> Rows:
    """Return the updates of all modifiers in the order in which they happen."""
    rows: list[tuple[int, int, tuple[str, ...]]] = []
    for number, modifier in enumerate(plan["modifiers"], start=1):
        updates = modifier.get("updates", [])
        shown = updates if everything else _shortened(updates)
        rows += [(update["step"], number, _row(plan, number, update)) for update in shown]
    return [row for _, _, row in sorted(rows, key=lambda item: item[:2])]


def _shortened(updates: list[Plan]) -> list[Plan]:
    if len(updates) <= MOST_ROWS:
        return updates
    head, tail = updates[: MOST_ROWS // 2], updates[-MOST_ROWS // 2 :]
    hidden = len(updates) - len(head) - len(tail)
    left_out = {**updates[len(head)], "kind": f"... {hidden} more updates (--all shows them)"}
    left_out.pop("sparsity", None)
    return [*head, left_out, *tail]


def _row(plan: Plan, number: int, update: Plan) -> tuple[str, ...]:
    after = " after run" if update.get("after_training") else ""
    after += f": {update['dense']}" if "dense" in update else ""
    return (
        _span(update, "epoch"),
        _span(update, "step"),
        str(number),
        _name(plan, number),
        f"{update['kind']}{after}",
        _asked(plan["modifiers"][number - 1], update),
    )


def _asked(modifier: Plan, update: Plan) -> str:
    """Return the sparsity at an update, or how much of the way to a goal it is."""
    if "sparsity" not in update:
        return ""
    if "aim" not in modifier:
        return _span(update, "sparsity")
    return f"{last_of(update, 'sparsity'):.1%} of the way"


def _span(update: Plan, key: str) -> str:
    first, last = number_text(update[key]), number_text(last_of(update, key))
    return first if last == first else f"{first}-{last}"


def number_text(value: Any) -> str:
    """Return a number, or the range of several, as text; for None that nothing changes."""
    if value is None:
        return "as it is"
    if isinstance(value, list):
        return f"{number_text(min(value))} to {number_text(max(value))}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _matches(plan: Plan) -> Rows:
    for number, modifier in enumerate(plan["modifiers"], start=1):
        for match in modifier.get("matches", []):
            counts = (f"{match['tensors']:,}", f"{match['weights']:,}")
            yield str(number), _name(plan, number), match["pattern"], *counts


def _dense(coverage: Plan, everything: bool) -> Rows:
    for key, remark in (("not_selected", ""), ("by_name_only", " (by name only)")):
        rows = [(_family(one["name"], everything), one) for one in coverage.get(key, [])]
        rows.sort(key=lambda row: row[0])
        families = [
            (name, [one for _, one in members])
            for name, members in groupby(rows, key=lambda row: row[0])
        ]
        families.sort(key=lambda family: -sum(one["weights"] for one in family[1]))
        for name, members in families if everything else families[:MOST_ROWS]:
            weights = sum(one["weights"] for one in members)
            yield name, f"{members[0]['layer']}{remark}", f"{len(members):,}", f"{weights:,}"
        if not everything and len(families) > MOST_ROWS:
            left = [one for _, members in families[MOST_ROWS:] for one in members]
            weights = sum(one["weights"] for one in left)
            yield "... (--all shows them)", f"others{remark}", f"{len(left):,}", f"{weights:,}"


def _family(name: str, itself: bool) -> str:
    """Return the name with stars for the numbers of layers, unless it is to stand for itself."""
    return name if itself else re.sub(r"(?<![^._])\d+(?=\.)", "*", name)


def notes(plan: Plan) -> Iterator[str]:
    """Yield one sentence or two on each thing that is worth knowing."""
    yield from map(_overlap, plan.get("overlaps", []))
    for number, modifier in enumerate(plan["modifiers"], start=1):
        yield from (f"#{number} {note}" for note in _of_modifier(modifier, plan["epochs"]))
        yield from removal_notes(number, modifier["removes"]) if "removes" in modifier else ()
    if plan["steps_per_epoch_assumed"]:
        yield f"{plan['steps_per_epoch']} steps per epoch are assumed; --steps-per-epoch sets them."
    if "coverage" in plan:
        yield from _coverage(plan["coverage"])


def _of_modifier(modifier: Plan, epochs: int) -> Iterator[str]:
    if "inert" in modifier:
        yield f"is loaded and cannot run: {modifier['inert']}."
        return
    if modifier.get("never_acts"):
        yield f"never acts: a run of {_epochs(epochs)} is over before it starts."
    for late in modifier.get("late_updates", []):
        yield f"does not get to its update at epoch {late:g}: a run has {_epochs(epochs)}."
    if "frees_at" in modifier:
        yield (
            f"ends at epoch {number_text(modifier['frees_at'])} and lets go of its masks: the "
            "weights grow again, unless another modifier holds them."
        )
    if "reaches" in modifier:
        yield (
            f"ends when a run of {_epochs(epochs)} is over: the last update within it "
            f"{_reached(modifier['reaches'])}. End the modifier earlier, or train longer."
        )
    for name, without in modifier.get("needs", {}).items():
        yield (
            f"asks for a {name.replace('_', ' ')}; without one {without}. Give manager.modify, "
            f"initialize or apply {name}={_HOW_TO_GIVE.get(name, '...')}."
        )
    if "aim" in modifier:
        asked = modifier["aim"].removeprefix("at the end ")
        yield f"asks for {asked}; how many units go for that is found when training begins."
    elif "one_shot_sparsity" in modifier:
        sparsity = modifier["one_shot_sparsity"]
        does = "keeps zero what is" if sparsity is None else f"sparsity {number_text(sparsity)}"
        yield f"in one shot (manager.apply): {does}."


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _reached(reaches: Plan) -> str:
    if "share" in reaches:
        return f"goes {reaches['share']:.4g} of the way"
    reached, final = (number_text(reaches[key]) for key in ("sparsity", "final_sparsity"))
    return f"asks for {reached}, not for {final}"


def _overlap(pair: Plan) -> str:
    first, second = pair["modifiers"]
    names, until = pair["names"], pair["end_epoch"]
    tensors = names[0] if len(names) == 1 else f"{len(names)} tensors ({names[0]}, ...)"
    end = "the end" if until < 0 else f"epoch {number_text(until)}"
    start = number_text(pair["start_epoch"])
    return (
        f"#{first} and #{second} both prune {tensors} from epoch {start} to {end}: their masks "
        "multiply, and more may be pruned than either asks for."
    )


def _count(kind: str, found: Plan) -> str:
    return f"{found['weights']:,} weights of {kind}"


def _coverage(coverage: Plan) -> Iterator[str]:
    if coverage["by_name_only"]:
        first = max(coverage["by_name_only"], key=lambda one: one["weights"])["name"]
        yield (
            f"By name only: __ALL_PRUNABLE__ does not mean these; '{first}' in params would prune "
            "one of them."
        )
    if rest := coverage["rest"]:
        yield f"Dense besides: {', '.join(_count(*item) for item in rest.items())}."
    for kind, found in coverage["pruned_rest"].items():
        leaves = "" if kind == "embeddings" else "; __ALL_PRUNABLE__ leaves them out"
        yield f"Pruned as well: {_count(kind, found)}, as in {found['first']}{leaves}."
    if unknown := coverage["unknown_weights"]:
        yield (
            f"{unknown:,} weights keep the zeros that they have, or lose what a goal takes; how "
            "many, this cannot tell."
        )
    if coverage["sparsity"] == 0.0:
        return
    yield (
        f"In all {coverage['sparsity']:.2%} of {coverage['weights']:,} weights become zero; of the "
        f"{coverage['layer_weights']:,} in linear and convolution layers "
        f"{coverage['layer_sparsity']:.2%}."
    )
