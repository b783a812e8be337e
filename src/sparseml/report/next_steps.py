"""What one has after a run: how to load and export it, and what to try next."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sparseml.report.findings import (
    headline_metric,
    is_broken,
    smaller_variant,
)
from sparseml.report.grouping import way_of
from sparseml.report.quality import compare_metric
from sparseml.report.reading import Run
from sparseml.report.run_directory import MODEL_FILE, SHRUNK_FOLDER
from sparseml.report.zeros import pruned_sparsity

_MODEL_FOLDER = "model"
_LIBRARIES = ("hf", "timm", "fairseq")
_EPOCHS, _MOST = 30, 0.99


class Step(NamedTuple):
    """What can be done, and the ``code`` for it in a ``language``: ``console`` or ``python``."""

    text: str
    code: str
    language: str = "console"


def next_steps(run: Run) -> list[Step]:
    """Return what can be done with the model that a run left, and what to try after it."""
    return [*_uses(run), *_trials(run)]


def _uses(run: Run) -> list[Step]:
    """Return how to load, export and time what is there."""
    steps = [step] if (step := _loading(run)) else []
    source = _source(run)
    if not source or not steps:
        return steps
    folder = shlex.quote(_shown(run.path))
    file = shlex.quote(_shown(run.path / "model.onnx"))
    steps.append(Step("Export it:", f"sparseml export {folder} --onnx {file}"))
    dense = shlex.quote(f"{_shown(run.path)}:dense")
    steps.append(Step("Time it beside the dense model:", f"sparseml bench {dense} {folder}"))
    return steps


def _source(run: Run) -> str:
    """Return what the run's model is for ``--model``, empty where nothing but its own trainer can
    build it."""
    name = run.config.get("model")
    if not isinstance(name, str) or not name or name.startswith("fairseq:"):
        return ""
    return name if ":" in name else f"timm:{name}"


def _loading(run: Run) -> Step | None:
    source = _source(run)
    of_library = source.partition(":")[0] in _LIBRARIES
    shrunk, folder = run.path / SHRUNK_FOLDER, run.path / _MODEL_FOLDER
    if shrunk.is_dir():
        given = "" if of_library else ", model"
        text = "Load the smaller model:" if of_library else "Load it into the model as it was:"
        code = f"model = sparseml.load_shrunk({_shown(shrunk)!r}{given})"
        return Step(text, f"import sparseml\n{code}", "python")
    if kind := _class_in(folder):
        code = f"model = {kind}.from_pretrained({_shown(folder)!r})"
        return Step("Load it:", f"from transformers import {kind}\n{code}", "python")
    weights = run.path / MODEL_FILE
    if not weights.is_file() or str(run.config.get("model")).startswith("fairseq:"):
        return None
    code = f"load_model({_shown(weights)!r}, model)"
    return Step(
        "Load its weights into the dense model:",
        f"from sparseml.pytorch.utils import load_model\n{code}",
        "python",
    )


def _class_in(folder: Path) -> str:
    """Return the class that Transformers loads a folder with, empty if it holds no such model."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = content["architectures"][0]
        return kind if isinstance(kind, str) and kind.isidentifier() else ""
    return ""


def _shown(path: Path) -> str:
    """Return a path from where the report was written, if it lies below that."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def _trials(run: Run) -> list[Step]:
    """Return what may do better: a way to what the run did not reach."""
    source, zeros = _source(run), pruned_sparsity(run.result.layers)
    if run.final is None or not zeros:
        return []
    steps = []
    if smaller_variant(run) is None:
        text = "Try next, to be faster: remove whole channels, heads or neurons. Recipes for it:"
        steps.append(Step(text, "sparseml recipe list structured"))
    if source:
        steps.append(_recipe(run, source, zeros))
    return steps


def _recipe(run: Run, source: str, zeros: float) -> Step:
    headline, base = headline_metric(run), run.baseline
    lost = is_broken(run)
    if headline and base and run.final and headline[0] in base.metrics:
        lost = lost or compare_metric(headline[0], run.final, base).kind == "loss"
    command = f"sparseml recipe new --model {shlex.quote(source)}"
    if not lost:
        more = f"{min((1 + zeros) / 2, _MOST):.3g}"
        text = "Try next, as nothing measurable was lost: more zeros, by a recipe such as this:"
        return Step(text, f"{command} --method cap --sparsity {more} -o more.yaml")
    if way_of(run) == "one shot":
        text = "Try next, to lose less: prune gradually while training, by a recipe such as this:"
        return Step(text, f"{command} --sparsity {zeros:.3g} --epochs {_EPOCHS} -o gradual.yaml")
    fewer = f"{max(min(1 - 1.5 * (1 - zeros), _MOST), zeros / 2):.3g}"
    text = "Try next, to lose less: fewer zeros, by a recipe such as this:"
    return Step(text, f"{command} --method cap --sparsity {fewer} --epochs {_EPOCHS} -o less.yaml")
