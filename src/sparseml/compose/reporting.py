"""What composing has brought: a table of configurations, what it cost, and the Pareto front."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sparseml.compose.finishing import finished_models
from sparseml.pytorch.sparsification.composing.blocks import Plan
from sparseml.pytorch.sparsification.composing.store import BlockStore
from sparseml.report.formats import prefers_low
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
    reuse, tuning = report["reuse"], report["tuning"]
    lines = [
        f"{reuse['requests']} blocks asked for, {reuse['distinct']} distinct, each used "
        f"{reuse['factor']:.2f} times; tuned in {tuning['seconds']:.0f} s, {tuning['steps']} steps",
        "",
    ]
    rows = [row for row in report["configurations"] if row["metrics"]]
    names = list(rows[0]["metrics"]) if rows else []
    head = ["configuration", "weights", *names, "epochs", "seconds", "latency", "Pareto"]
    lines += [_row(head), _row(["---"] * len(head))]
    if report["origin"]:
        lines.append(
            _row(["origin", "", *(f"{report['origin'][n]:.4f}" for n in names), *[""] * 4])
        )
    for row in report["configurations"]:
        found = row["metrics"] or {}
        latency = (row["latency"] or {}).get("sparse")
        lines.append(
            _row(
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
        )
    lines += ["", _row(["block", "used by", "loss before", "after"]), _row(["---"] * 4)]
    for block in report["blocks"]:
        losses = ["-" if block[k] is None else f"{block[k]:.4g}" for k in ("before", "after")]
        lines.append(_row([block["block"], str(len(block["used_by"])), *losses]))
    return "\n".join(lines) + "\n"


def write_report(store: BlockStore, report: Mapping[str, Any]) -> list[Path]:
    """Write the table and, where matplotlib is installed, the plot of accuracy over size."""
    files = [store.folder / "report.md"]
    with atomic_text(files[0]) as file:
        file.write(as_text(report))
    rows = [row for row in report["configurations"] if row["metrics"]]
    if rows:
        with contextlib.suppress(ImportError):
            files.append(_plot(store.folder / "pareto.svg", rows, report["origin"]))
    return files


def _plot(
    path: Path, rows: Sequence[Mapping[str, Any]], origin: Mapping[str, float] | None
) -> Path:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.stem  # the same picture is the same file
    from matplotlib import pyplot

    metric = next(iter(rows[0]["metrics"]))
    figure, panel = pyplot.subplots(figsize=(6, 4))
    for row in rows:
        place = row["kept_params"], row["metrics"][metric]
        panel.plot(*place, "o", color="C0" if row["pareto"] else "lightgray")
        panel.annotate(row["name"], place, textcoords="offset points", xytext=(5, -3), fontsize=8)
    front = sorted((r["kept_params"], r["metrics"][metric]) for r in rows if r["pareto"])
    panel.plot([x for x, _ in front], [y for _, y in front], "-", color="C0", linewidth=1)
    if origin:
        panel.axhline(origin[metric], color="gray", linewidth=0.8, linestyle=":", label="origin")
        panel.legend(fontsize=8)
    panel.set(xlabel="weights that are kept", ylabel=metric)
    panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def _goodness(row: Mapping[str, Any]) -> float:
    name, value = next(iter(row["metrics"].items()))
    return -float(value) if prefers_low(name) else float(value)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
