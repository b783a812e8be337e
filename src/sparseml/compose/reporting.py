"""What composing has brought: a table of configurations, what it cost, and the Pareto front."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseml.compose.finishing import finished_models
from sparseml.pytorch.sparsification.composing.blocks import Plan
from sparseml.pytorch.sparsification.composing.store import BlockStore
from sparseml.report.formats import capital, metric_text, prefers_low
from sparseml.report.panels.charts import Panel, Table
from sparseml.report.panels.runtime import chart_picture
from sparseml.report.panels.tradeoffs import Mark, scatter_panel
from sparseml.report.rendering import html_page
from sparseml.run.files import atomic_text


def composed_report(store: BlockStore, plan: Plan) -> dict[str, Any]:
    """Return what a store tells: reuse, blocks before and after tuning, models and their cost."""
    blocks: list[dict[str, Any]] = []
    seconds, began = 0.0, {}
    for event in store.ledger.events():
        key = event.get("tune_id")
        if event["event"] == "started":
            began[key] = event["time"]
        if event["event"] == "finished" and key in began:
            seconds = max(seconds, event["time"] - min(began.values()))
    for block in plan.blocks:
        done = store.ledger.last("finished", block_id=block.block_id) or {}
        told = {key: done.get(key) for key in ("before", "after", "steps", "best_epoch")}
        used = list(block.used_by)
        blocks.append(
            {"block": block.label, "target": block.spec["target"], "used_by": used, **told}
        )
    models = finished_models(store.folder / "models")
    rows = []
    for one in plan.configurations:
        found = models.get(one["name"], {})
        rows.append(
            {
                "name": one["name"],
                "blocks": len(one["blocks"]),
                "kept_params": one["kept_params"],
                "flops": one["flops"],
                **{k: found.get(k) for k in ("source", "metrics", "epochs", "seconds", "latency")},
                "history": found.get("history"),
            }
        )
    front = pareto([row for row in rows if row["metrics"]])
    for row in rows:
        row["pareto"] = row["name"] in front
    origin = next((m["origin"] for m in models.values() if m.get("origin")), None)
    tuning = {"seconds": round(seconds, 1), "steps": sum(b["steps"] or 0 for b in blocks)}
    return {"reuse": dict(plan.reuse), "origin": origin, "tuning": tuning, "blocks": blocks,
            "configurations": rows}  # fmt: skip


def pareto(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the rows that no other beats in size and in its first metric.

    :param rows: each with ``name``, ``kept_params`` and ``metrics``
    """
    front = []
    for row in rows:
        size, good = row["kept_params"], _goodness(row)
        beaten = any(
            o["kept_params"] <= size and _goodness(o) >= good
            and (o["kept_params"] < size or _goodness(o) > good)
            for o in rows
        )  # fmt: skip
        front += [] if beaten else [str(row["name"])]
    return front


def as_text(report: Mapping[str, Any]) -> str:
    """Return a report as Markdown."""
    lines = [_sentence(report)]
    for table in (_configurations(report), _blocks(report)):
        lines += ["", _row(table.heads), _row(["---"] * len(table.heads)), *map(_row, table.rows)]
    return "\n".join(lines) + "\n"


def _sentence(report: Mapping[str, Any]) -> str:
    reuse, tuning = report["reuse"], report["tuning"]
    return (
        f"{reuse['requests']} blocks asked for, {reuse['distinct']} distinct, each used "
        f"{reuse['factor']:.2f} times; tuned in {tuning['seconds']:.0f} s, {tuning['steps']} steps"
    )


def _configurations(report: Mapping[str, Any]) -> Table:
    measured = [row for row in report["configurations"] if row["metrics"]]
    names = list(measured[0]["metrics"]) if measured else []
    rows: list[list[str]] = []
    if report["origin"]:
        rows.append(["origin", "", *(f"{report['origin'][n]:.4f}" for n in names), *[""] * 4])
    for row in report["configurations"]:
        found = row["metrics"] or {}
        latency = (row["latency"] or {}).get("sparse")
        rows.append(
            [
                row["name"],
                f"{row['kept_params']:,}",
                *(f"{found[n]:.4f}" if found else "-" for n in names),
                "-" if row["epochs"] is None else str(row["epochs"]),
                "-" if row["seconds"] is None else f"{row['seconds']:.0f}",
                f"{latency['median_ms']:.2f} ms" if latency else "-",
                "*" if row["pareto"] else "",
            ]
        )
    heads = ["configuration", "weights", *names, "epochs", "seconds", "latency", "Pareto"]
    return Table(heads, rows)


def _blocks(report: Mapping[str, Any]) -> Table:
    rows = [
        [
            block["block"],
            str(len(block["used_by"])),
            *("-" if block[k] is None else f"{block[k]:.4g}" for k in ("before", "after")),
        ]
        for block in report["blocks"]
    ]
    return Table(["block", "used by", "loss before", "after"], rows)


def write_report(store: BlockStore, report: Mapping[str, Any]) -> list[Path]:
    """Write ``report.md`` and, with the extra ``report``, ``report.html`` and ``pareto.svg``.

    :return: the files that were written
    """
    panels = [
        Panel("configurations", "Configurations", _configurations(report)),
        Panel("blocks", "Blocks", _blocks(report)),
    ]
    contents = {"report.md": as_text(report)}
    if any(row["metrics"] for row in report["configurations"]):
        panels.insert(0, chart := _chart(report))
        with contextlib.suppress(ImportError):
            contents["pareto.svg"] = chart_picture(chart)
    context = {"title": "Composed models", "subtitle": str(store.folder), "panels": panels}
    with contextlib.suppress(ImportError):
        sentence = f"{_sentence(report)}."
        contents["report.html"] = html_page("panels.html.j2", {**context, "sentence": sentence})
    for name, content in contents.items():
        with atomic_text(store.folder / name) as file:
            file.write(content)
    return [store.folder / name for name in contents]


def _chart(report: Mapping[str, Any]) -> Panel:
    """Return the first metric over the weights that are kept."""
    rows = [row for row in report["configurations"] if row["metrics"]]
    metric = next(iter(rows[0]["metrics"]))
    front = "Pareto front"
    marks = [
        Mark(
            front,
            row["name"],
            size := row["kept_params"],
            value := row["metrics"][metric],
            size,
            aside=not row["pareto"],
            tip=f"{row['name']}\n{metric} {metric_text(metric, value)}\n{size:,} weights",
        )
        for row in rows
    ]
    level = ("origin", report["origin"][metric]) if report["origin"] else None
    axes = ("weights that are kept", metric)
    title = f"{capital(metric)} over size"
    panel = scatter_panel("front", title, axes, marks, level, aside="beaten")
    names = {"type": "text", "align": "left", "dx": 8, "dy": 12, "color": "var(--fg)"}
    values = [{"x": mark.x, "y": mark.y, "n": mark.name} for mark in marks]
    text = {"text": {"field": "n", "type": "nominal"}}
    spec = panel.spec or {}
    spec["layer"].append({"data": {"values": values}, "mark": names, "encoding": text})
    return panel


def _goodness(row: Mapping[str, Any]) -> float:
    name, value = next(iter(row["metrics"].items()))
    return -float(value) if prefers_low(name) else float(value)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
