"""Plot how the time of a CAP step grows, from the results of ``second_order.py``.

    python benchmarks/plot_second_order.py

Writes ``docs/images/second_order_cost.svg``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/second_order.json"
PICTURE = ROOT / "docs/images/second_order_cost.svg"


def line(points: Sequence[dict[str, float]], key: str) -> tuple[float, float]:
    """Slope and intercept of the straight line of least squares through seconds over ``key``."""
    xs, ys = [point[key] for point in points], [point["seconds"] for point in points]
    middle, height = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - middle) * (y - height) for x, y in zip(xs, ys, strict=True))
    slope = above / sum((x - middle) ** 2 for x in xs)
    return slope, height - slope * middle


def plot(path: Path, content: dict[str, Any]) -> None:
    """Seconds over weights and over gradients, each with its straight line."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = path.stem  # the same results give the same file
    from matplotlib import pyplot

    labels = {"d": "weights d, thousands", "N": "gradients N"}
    kinds = {"d": "by_weights", "N": "by_gradients"}
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for panel, (key, kind) in zip(panels, kinds.items(), strict=True):
        points = content["linearity"][kind]
        slope, start = line(points, key)
        unit = 1000 if key == "d" else 1
        ends = [0, max(point[key] for point in points)]
        panel.plot([x / unit for x in ends], [start + slope * x for x in ends], color="gray", lw=1)
        seconds = [point["seconds"] for point in points]
        panel.plot([point[key] / unit for point in points], seconds, "o")
        panel.set(xlabel=labels[key], ylabel="seconds", xlim=(0, None), ylim=(0, None))
        panel.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    plot(PICTURE, json.loads(RESULTS.read_text()))
    print(PICTURE)
