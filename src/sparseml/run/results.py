"""What both scripts leave behind in and beside their run directories: latencies, the report."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from sparseml.report import (
    RunDirectory,
    Variant,
    describe_model,
    layer_sparsities,
    measure_latency,
    write_report,
)
from sparseml.run.errors import RunError
from sparseml.run.progress import say
from sparseml.timm.models import short_name
from sparseml.timm.session import Session

PACKAGES = ("timm", "torchvision")
LATENCY_BATCH = 1


def experiment_folder(args: Namespace) -> Path:
    """Where the run goes: ``<output>/<experiment>``, which is named after model and recipe."""
    recipe = Path(args.sparseml_recipe).stem
    return Path(args.output) / (args.experiment or f"{short_name(args.model)}-{recipe}")


def start_run(folder: Path, args: Namespace, name: str, group: str | None) -> RunDirectory:
    """Begin a run directory with the arguments as its configuration."""
    try:
        run = RunDirectory.start(
            folder, name, group, config=vars(args), seed=args.seed, overwrite=args.overwrite
        )
    except FileExistsError as error:
        raise RunError(
            f"{folder} holds a run: give --resume {folder} to go on with it, --overwrite to "
            "replace it, or another --experiment"
        ) from error
    except OSError as error:
        raise RunError(f"--output: {folder} cannot be written: {error.strerror}") from error
    run.write_environment(PACKAGES)
    return run


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it.

    :raises RunError: if that cannot be
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--output: {folder} cannot be written: {error.strerror}") from error


def write_outcome(
    run: RunDirectory,
    session: Session,
    manager: Any,
    dense: Variant | None,
    model: Module,
    found: dict[str, float],
) -> Path:
    """Write the weights, and what the model is like beside the dense one.

    :param dense: None if that is written already
    :return: the file of weights
    """
    images = session.sample_images(LATENCY_BATCH)
    weights = run.save_model(model, recipe=manager)
    sparse = describe_model(model, _fractions(found), images)
    before = {} if dense is None else {"dense": dense}
    run.write_result({**before, "sparse": sparse}, layer_sparsities(model, manager))
    return weights


def describe_dense(session: Session, found: dict[str, float]) -> Variant:
    """The model that pruning starts from."""
    return describe_model(session.model, _fractions(found), session.sample_images(LATENCY_BATCH))


def write_latency(
    run: RunDirectory, dense: Module, model: Module, images: Any, rounds: int
) -> None:
    """Time the pruned model against the dense one, the two taking turns."""
    if rounds < 1:
        return
    with torch.inference_mode():
        taken = measure_latency({"dense": dense, "sparse": model}, images, rounds)
    run.write_result({name: {"latency": [found]} for name, found in taken.items()})


def write_page(runs: Sequence[Path], folder: Path, args: Namespace) -> None:
    """Write the report, where its packages are installed."""
    if not args.report:
        return
    try:
        written = write_report(list(runs), folder)
    except ImportError as error:
        say(f"no report: {error}")
        return
    say(f"report: {folder / written.html.name}")


def _fractions(found: dict[str, float]) -> dict[str, float]:
    return {key: found[key] for key in ("top1", "top5", "loss")}
