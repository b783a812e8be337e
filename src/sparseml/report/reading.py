"""Reading a run directory, whatever state it is in, and what was logged in it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from sparseml.report.run_directory import MODEL_FILE, RUN_FILES, NotARunError, is_run, not_a_run
from sparseml.report.schema import (
    FORMAT,
    Layer,
    Model,
    Result,
    RunInfo,
    Schedule,
    Variant,
    validated,
)

_Read = TypeVar("_Read")

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


@dataclass
class Run:
    """All that is known of a run. ``problems`` says what is missing or cannot be read.

    ``label`` and ``group`` are what it is called and belongs to among the runs that it is shown
    with.
    """

    path: Path
    info: RunInfo
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    schedule: Schedule | None = None
    metrics: Metrics = field(default_factory=Metrics)
    result: Result = field(default_factory=Result)
    problems: list[str] = field(default_factory=list)
    label: str = ""
    group: str = ""

    @property
    def name(self) -> str:
        """What the run is called."""
        return self.label or self.info.name

    @property
    def failed(self) -> bool:
        """Whether it ended before its end."""
        return self.info.status in ("failed", "interrupted")

    @property
    def final(self) -> Variant | None:
        """The model that the run ended with: the sparse one or, if a run that has come to its end
        has no other, the dense one."""
        ended = self.info.status == "finished"
        return self.variant("sparse") or (self.variant("dense") if ended else None)

    @property
    def baseline(self) -> Variant | None:
        """The model before pruning, if the run ended with another and it was not untrained."""
        dense = self.variant("dense")
        known = dense is not None and dense is not self.final and dense.trained is not False
        return dense if known else None

    def variant(self, name: str) -> Variant | None:
        """One form of the model, None if nothing is known of it."""
        return self.result.variants.get(name)


def find_runs(path: str | os.PathLike[str]) -> list[Path]:
    """Return the run in a folder or, if it is none itself, all runs below it, by age.

    :raises NotARunError: if there are none
    """
    folder = Path(path).expanduser().absolute()
    if is_run(folder):
        return [folder]
    below = [file.parent for file in folder.rglob(RUN_FILES["run"]) if is_run(file.parent)]
    if not below:
        raise NotARunError(not_a_run(folder))
    return sorted(below, key=lambda run: (_created(run), run.name))


def _created(folder: Path) -> str:
    info = _model(Run(folder, RunInfo(name="")), "run", RunInfo)
    return (info and info.created) or ""


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read what a run left behind.

    Files that are missing, cut short or malformed do not stand in the way of the others.

    :raises NotARunError: if the folder is missing or holds no ``run.json``
    """
    folder = Path(path).expanduser().absolute()
    if not is_run(folder):
        raise NotARunError(not_a_run(folder))
    run = Run(folder, RunInfo(name=folder.name, status="unknown"))
    run.info = _model(run, "run", RunInfo) or run.info
    if run.info.format != FORMAT:
        run.problems.append(
            f"run.json: format {run.info.format!r} is not {FORMAT!r}, which is what this version "
            "reads; some parts may be missing or wrong"
        )
    run.config, run.environment = _object(run, "config"), _object(run, "environment")
    run.recipe = _content(run, "recipe", lambda file: file.read_text("utf-8", errors="replace"))
    # a model that was pruned in one shot logged nothing, and had nothing to plan
    trained = [(folder / RUN_FILES[what]).exists() for what in ("metrics", "schedule")]
    if any(trained) or run.recipe is None:
        run.metrics = _content(run, "metrics", read_metrics) or run.metrics
    if any(trained):
        run.schedule = _model(run, "schedule", Schedule)
    if run.metrics.unreadable:
        run.problems.append(
            f"{RUN_FILES['metrics']}: {run.metrics.unreadable} of {run.metrics.lines} lines are "
            "cut short or malformed and left out"
        )
    run.result = _model(run, "result", Result) or run.result
    if not run.result.layers:
        _count_from_weights(run)
    return run


def _content(run: Run, what: str, read: Callable[[Path], _Read]) -> _Read | None:
    """Read a file; if that fails, note why."""
    file = run.path / RUN_FILES[what]
    try:
        return read(file)
    except FileNotFoundError:
        logged = ": the run logged nothing while training" if what == "metrics" else ""
        run.problems.append(f"{file.name} is missing{logged}")
    except (OSError, ValueError, RecursionError) as error:
        run.problems.append(f"{file.name} cannot be read: {error}")
    return None


def _json(file: Path) -> tuple[Any]:
    return (json.loads(file.read_text(encoding="utf-8")),)


def _model(run: Run, what: str, kind: type[Model]) -> Model | None:
    content = _content(run, what, _json)
    parsed, faults = validated(kind, *content) if content else (None, [])
    run.problems += [f"{RUN_FILES[what]}: {fault}" for fault in faults]
    return parsed


def _object(run: Run, what: str) -> dict[str, Any]:
    content = _content(run, what, _json)
    if content and not isinstance(content[0], dict):
        run.problems.append(f"{RUN_FILES[what]} holds no JSON object")
    return content[0] if content and isinstance(content[0], dict) else {}


def _count_from_weights(run: Run) -> None:
    """Find out from the saved weights what no result tells."""
    file = run.path / MODEL_FILE
    if not file.exists():
        run.problems.append(f"no layers in {RUN_FILES['result']}, and no {MODEL_FILE} to count in")
        return
    from sparseml.pytorch.utils.model import CheckpointError, read_model_file
    from sparseml.pytorch.utils.tensors.stats import count_zeros
    from sparseml.report.describe import measure_storage

    try:
        state = read_model_file(file)["state_dict"]
    except (CheckpointError, OSError) as error:
        run.problems.append(f"{file.name} cannot be read: {error}")
        return
    run.problems.append(
        f"no layers in {RUN_FILES['result']}: zeros and sizes were counted in {MODEL_FILE}"
    )
    for name, tensor in state.items():
        if tensor.ndim > 1 and name.endswith("weight"):
            shape, zeros = list(tensor.shape), count_zeros(tensor)
            layer = Layer(name=name, shape=shape, parameters=tensor.numel(), zeros=zeros)
            run.result.layers.append(layer)
    final = run.result.variants.setdefault("sparse", Variant())
    final.storage = final.storage or measure_storage(state)


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
        target = metrics.parameters if name.startswith(PRUNING_TAG) else metrics.series
        target[name.removeprefix(PRUNING_TAG)] = sorted(values.items())
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
