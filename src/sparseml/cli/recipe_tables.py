"""The findings of ``sparseml recipe check`` for people to read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["print_plan"]

PLAIN_WIDTH = 120
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

NUMBERS = {"#", "epoch", "step", "tensors", "weights"}

Plan = dict[str, Any]


def print_plan(plan: Plan, all_updates: bool) -> None:
    """Print the tables to stdout; as plain text where that is no terminal."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)
    console.print(_modifiers(plan), _timeline(plan, all_updates))
    if any(modifier.get("matches") for modifier in plan["modifiers"]):
        console.print(_matches(plan))
    for line in _notes(plan):
        console.print(line, soft_wrap=True, markup=False)


def _table(title: str, *headings: str) -> Table:
    """Return an empty table; columns of the headings in ``NUMBERS`` are aligned to the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(
            heading, justify="right" if heading in NUMBERS else "left", overflow="fold"
        )
    return table


def _name(plan: Plan, number: int) -> str:
    modifier = plan["modifiers"][number - 1]
    stage = f"{modifier['stage']}: " if modifier["stage"] else ""
    return f"{stage}{modifier['modifier']}"


def _modifiers(plan: Plan) -> Table:
    table = _table("Modifiers", "#", "modifier", "fields")
    for number, modifier in enumerate(plan["modifiers"], start=1):
        fields = (f"{k}={v}" for k, v in modifier["fields"].items() if k not in SCHEDULE)
        table.add_row(str(number), escape(_name(plan, number)), escape(", ".join(fields)))
    return table


def _timeline(plan: Plan, all_updates: bool) -> Table:
    """Return the updates of all modifiers in the order in which they happen."""
    title = f"Timeline, {plan['steps_per_epoch']} optimizer steps per epoch"
    table = _table(title, "epoch", "step", "#", "modifier", "acts", "sparsity")
    rows: list[tuple[int, int, tuple[str, ...]]] = []
    for number, modifier in enumerate(plan["modifiers"], start=1):
        updates = modifier.get("updates", [])
        shown = updates if all_updates else _shortened(updates)
        rows += [(update["step"], number, _row(plan, number, update)) for update in shown]
    for _, _, row in sorted(rows, key=lambda item: item[:2]):
        table.add_row(*row)
    return table


def _shortened(updates: list[Plan]) -> list[Plan]:
    if len(updates) <= MOST_ROWS:
        return updates
    head, tail = updates[: MOST_ROWS // 2], updates[-MOST_ROWS // 2 :]
    hidden = len(updates) - len(head) - len(tail)
    left_out = {**updates[len(head)], "kind": f"... {hidden} more updates (--all shows them)"}
    left_out.pop("sparsity", None)
    return [*head, left_out, *tail]


def _row(plan: Plan, number: int, update: Plan) -> tuple[str, ...]:
    after = " (after the last step)" if update.get("after_training") else ""
    return (
        _span(update, "epoch"),
        _span(update, "step"),
        str(number),
        escape(_name(plan, number)),
        f"{update['kind']}{after}",
        _span(update, "sparsity") if "sparsity" in update else "",
    )


def _span(update: Plan, key: str) -> str:
    first, last = _text(update[key]), update.get(f"until_{key}")
    return first if last is None or _text(last) == first else f"{first} to {_text(last)}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"{_text(min(value))} to {_text(max(value))}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _matches(plan: Plan) -> Table:
    table = _table("Matches", "#", "modifier", "pattern", "tensors", "weights")
    for number, modifier in enumerate(plan["modifiers"], start=1):
        for match in modifier.get("matches", []):
            table.add_row(
                str(number),
                escape(_name(plan, number)),
                escape(match["pattern"]),
                f"{match['tensors']:,}",
                f"{match['weights']:,}",
            )
    return table


def _notes(plan: Plan) -> Iterator[str]:
    yield from map(_overlap, plan.get("overlaps", []))
    if plan["steps_per_epoch_assumed"]:
        yield f"{plan['steps_per_epoch']} steps per epoch are assumed; --steps-per-epoch sets them."
    for number, modifier in enumerate(plan["modifiers"], start=1):
        if "inert" in modifier:
            yield f"#{number} is loaded and cannot run: {modifier['inert']}."
        if "one_shot_sparsity" not in modifier:
            continue
        at_once = _text(modifier["one_shot_sparsity"])
        yield f"#{number} in one shot (manager.apply): sparsity {at_once}."
        updates = modifier["updates"]
        if len(updates) > 1 and updates[-1].get("after_training"):
            reached = updates[-2].get("until_sparsity", updates[-2]["sparsity"])
            yield (
                f"#{number} ends when a run of {plan['epochs']} epochs is over: the last update "
                f"within it asks for {_text(reached)}. End the modifier earlier, or train longer."
            )


def _overlap(pair: Plan) -> str:
    first, second = pair["modifiers"]
    names, until = pair["names"], pair["end_epoch"]
    tensors = names[0] if len(names) == 1 else f"{len(names)} tensors ({names[0]}, ...)"
    end = "the end" if until < 0 else f"epoch {_text(until)}"
    return (
        f"#{first} and #{second} both prune {tensors} from epoch {_text(pair['start_epoch'])} to "
        f"{end}: their masks multiply, and more may be pruned than either asks for."
    )
