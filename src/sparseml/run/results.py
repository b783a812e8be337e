"""What a run leaves in and beside its run directories: weights, measurements, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from sparseml.pytorch.units.saved import save_shrunk
from sparseml.pytorch.utils.params import parameter_count
from sparseml.report import (
    RunDirectory,
    Variant,
    describe_model,
    layer_sparsities,
    measure_latency,
    write_report,
)
from sparseml.report.run_directory import SHRUNK_FOLDER
from sparseml.report.shrinking import layers_text, places_text, shrunk_copy, shrunk_places
from sparseml.run.errors import RunError, one_line
from sparseml.run.files import holds_run
from sparseml.run.masks import MASKS_FILE, write_masks
from sparseml.run.progress import say
from sparseml.run.session import Found, Session
from sparseml.run.settings.groups import RunSettings
from sparseml.run.sweep import Pruned, notes_of

MODEL_FOLDER = "model"
"""Where the library of a model keeps it, with all that it needs to load it."""
_LATENCY_BATCH = 1


def experiment_name(settings: RunSettings, model_name: str) -> str:
    """Return what the run is called; by default after model and recipe.

    :raises RunError: for a name that leads out of the output folder
    """
    name = Path(settings.experiment or "")
    if name.is_absolute() or ".." in name.parts:
        raise RunError(f"--experiment must be a name below --output, found {settings.experiment!r}")
    return settings.experiment or f"{model_name}-{Path(settings.sparseml_recipe).stem}"


def experiment_folder(settings: RunSettings, model_name: str) -> Path:
    """Return ``<output>/<experiment>``, where the run goes."""
    return Path(settings.output) / experiment_name(settings, model_name)


def start_run(
    folder: Path,
    settings: RunSettings,
    config: Mapping[str, Any],
    packages: Sequence[str],
    name: str,
) -> RunDirectory:
    """Begin a run directory.

    :param config: all settings, name → value
    :param packages: whose versions are kept
    :raises RunError: if it cannot be written, or holds a run that is not to be replaced
    """
    try:
        run = RunDirectory.start(
            folder, name, config=config, seed=settings.seed, overwrite=settings.overwrite
        )
    except FileExistsError as error:
        raise holds_run(folder) from error
    except OSError as error:
        raise RunError(f"--output: {folder} cannot be written: {error.strerror}") from error
    run.write_environment(packages)
    return run


def write_outcome(
    run: RunDirectory,
    session: Session,
    pruned: Pruned,
    found: Found,
    variant: Variant | None,
    dense: Module | None,
    rounds: int,
) -> Path:
    """Write weights and masks, and what the model is like beside the dense one.

    :param found: by evaluating it
    :param variant: what the dense model is like, None if that is written already
    :param dense: the dense model, to take times with in turns; None takes none
    :param rounds: of each in which times are taken, at least; 0 takes none
    :return: the file of weights
    """
    model = pruned.model
    weights = run.save_model(model, recipe=pruned.manager)
    write = getattr(session, "write_model", None)
    if write is not None:
        write(model, pruned.manager, run.path / MODEL_FOLDER)
    before = {} if variant is None else {"dense": variant}
    inputs = session.sample_inputs(_LATENCY_BATCH)
    sparse = _described(session, model, found, inputs)
    run.write_result({**before, "sparse": sparse}, layer_sparsities(model, pruned.manager))
    write_masks(run.path / MASKS_FILE, pruned.masks)
    whole = None if dense is None else parameter_count(dense)
    reached = [getattr(one, "reached", "") for one in pruned.manager.iter_modifiers()]
    told = [f"Of the removal of units: {one}." for one in reached if isinstance(one, str) and one]
    if notes := [*pruned.notes, *notes_of(pruned.manager)]:
        run.write_result(notes=notes)
    shrunk = _write_shrunk(run, session, model, inputs, whole, told)
    if dense is not None and rounds > 0:
        models = {"dense": dense, "sparse": model, **shrunk}
        with torch.inference_mode():
            taken = measure_latency(models, inputs, rounds)
        run.write_result({name: {"latency": [times]} for name, times in taken.items()})
    return weights


def _write_shrunk(
    run: RunDirectory,
    session: Session,
    model: Module,
    inputs: Any,
    whole: int | None,
    notes: Sequence[str],
) -> dict[str, Module]:
    """Write the model without what is zero as a whole, or that lost units already.

    :param whole: how many parameters there were; None where that is not known
    :param notes: further sentences to tell of it
    """
    try:
        found = shrunk_copy(model, inputs)
    except (RuntimeError, ValueError) as error:
        run.write_result(notes=[f"Whether it can be shrunk was not found out: {one_line(error)}."])
        found = None
    if found is None:
        return {}
    save_shrunk(found, run.path / SHRUNK_FOLDER, getattr(session, "built_by", None))
    places = shrunk_places(found)
    told = places_text(places)
    if whole is not None:
        told += f", {parameter_count(found)} of {whole} parameters"
    told += "; it computes the same" if parameter_count(found) < parameter_count(model) else ""
    described = describe_model(found, inputs=inputs, description=told)
    described = described.model_copy(update={"places": places})
    run.write_result({"shrunk": described}, notes=[layers_text(places), *notes])
    return {"shrunk": found}


def describe_dense(session: Session, found: Found) -> Variant:
    """Return what the model that pruning starts from is like."""
    inputs = session.sample_inputs(_LATENCY_BATCH)
    described = _described(session, session.model, found, inputs)
    return described.model_copy(update={"trained": getattr(session, "weights_loaded", None)})


def write_page(runs: Sequence[Path], folder: Path, settings: RunSettings) -> None:
    """Write the report, where its packages are installed."""
    if not settings.report:
        return
    try:
        say(f"report: {folder / write_report(runs, folder).html.name}")
    except ImportError as error:
        say(f"no report: {error}")


def _described(session: Session, model: Module, found: Found, inputs: Any) -> Variant:
    told = {metric.name: found[metric.name] for metric in session.metrics}
    samples = getattr(session, "evaluated_samples", None)
    return describe_model(model, told, inputs, samples=samples)
