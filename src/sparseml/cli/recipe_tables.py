"""The findings of ``sparseml recipe check`` as tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from sparseml.cli.recipe_plan import Plan, last_of
from sparseml.cli.tables import table
from sparseml.utils.text import shown

__all__ = ["number_text", "tables"]

MOST_ROWS = 12  # of one modifier, unless all are asked for
# what the timeline shows already
SCHEDULE = {
    "start_epoch",
    "end_epoch",
    "update_frequency",
    "start_step",
    "end_step",
    "update_steps",
}

Rows = Iterable[tuple[str, ...]]


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
    return (
        _span(update, "epoch"),
        _span(update, "step"),
        str(number),
        _name(plan, number),
        f"{update['kind']}{after}",
        _span(update, "sparsity") if "sparsity" in update else "",
    )


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
