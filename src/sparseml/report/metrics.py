"""Reading ``metrics.jsonl``: series of numbers over steps."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

__all__ = ["Metrics", "Points", "decimated", "read_metrics"]

Points = list[tuple[float, float]]

#: What pruning modifiers log at every update, followed by the parameter's name.
PRUNING_TAG = "ParamPruning/"
# logged over epochs instead of steps, and told in other parts of a report
_UNCHARTED = ("SparsificationSummaries/", "SparsificationPruning/", "SparsificationQuantization/")


@dataclass
class Metrics:
    """What a run logged.

    ``series`` holds numbers over steps by name, ``<tag>`` or ``<tag>/<key>``, in the order in which
    they first appear; ``parameters`` the sparsity of each pruned parameter, measured at every
    logged update of its mask. Of several entries for a step the last counts.
    """

    series: dict[str, Points] = field(default_factory=dict)
    parameters: dict[str, Points] = field(default_factory=dict)
    lines: int = 0
    unreadable: int = 0

    @property
    def update_steps(self) -> list[float]:
        """The steps at which masks were updated, as far as that was logged."""
        return sorted({step for points in self.parameters.values() for step, _ in points})

    @property
    def last_step(self) -> float | None:
        """The last step that anything was logged for."""
        steps = [points[-1][0] for points in self.series.values()]
        return max([*steps, *self.update_steps], default=None)


def read_metrics(path: Path) -> Metrics:
    """Read a file of :class:`~sparseml.pytorch.utils.logger.JSONLinesLogger`.

    Lines that are no JSON objects (the last one, if a crash cut it short) are counted and passed
    over, and so are texts and numbers without a step.

    :raises FileNotFoundError: if there is no such file
    """
    metrics = Metrics()
    found: dict[str, dict[float, float]] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in filter(str.strip, file):
            entry = _entry(line)
            metrics.lines += 1
            if entry is None:
                metrics.unreadable += 1
                continue
            step = _number(entry.get("step"))
            if step is None or not math.isfinite(step):
                continue
            for name, value in _scalars(entry):
                found.setdefault(name, {})[step] = value
    for name, values in found.items():
        target, name = (
            (metrics.parameters, name.removeprefix(PRUNING_TAG))
            if name.startswith(PRUNING_TAG)
            else (metrics.series, name)
        )
        target[name] = sorted(values.items())
    return metrics


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("tag"), str) else None


def _scalars(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    tag = entry["tag"]
    if tag.startswith(_UNCHARTED):
        return
    named = {tag: entry.get("value")}
    if isinstance(entry.get("values"), dict):
        named |= {f"{tag}/{key}": value for key, value in entry["values"].items()}
    for name, value in named.items():
        number = _number(value)
        if number is not None:
            yield name, number


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)  # "NaN" and "Infinity" among the strings
    except (ValueError, OverflowError):
        return None


def decimated(points: Points, most: int = 400) -> Points:
    """Leave out points that cannot be told apart on a screen, but no peak and no trough.

    :param most: how many are wanted; of every stretch the lowest and the highest are kept
    """
    if len(points) <= most:
        return points
    size = -(-2 * len(points) // most)
    kept: Points = []
    for start in range(0, len(points), size):
        stretch = [point for point in points[start : start + size] if math.isfinite(point[1])]
        if stretch:
            ends = {min(stretch, key=itemgetter(1)), max(stretch, key=itemgetter(1))}
            kept += sorted(ends)
    return [*kept, points[-1]] if kept and kept[-1] != points[-1] else kept
