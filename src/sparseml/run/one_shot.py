"""Pruning in one shot, without training, to one or several sparsities, and evaluating each.

Every sparsity gets a run directory below ``<output>/<experiment>``: ``model.safetensors``, the
packed masks in ``masks.safetensors``, the recipe as it was applied and what was measured. Beside
them lie ``results.csv``, ``results.json``, ``table.txt`` and ``report.html``.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from pathlib import Path
from typing import Any

from sparseml.run.batch_norm import retune_batch_norm, tracked_norms
from sparseml.run.errors import RunError
from sparseml.run.files import atomic_text, make_folder, write_rows
from sparseml.run.fitting import foretell, load_recipe, require_fitting_patterns, timed_sampler
from sparseml.run.logs import service_loggers
from sparseml.run.processes import prepare, processes, require_same_everywhere
from sparseml.run.progress import say
from sparseml.run.results import (
    describe_dense,
    experiment_folder,
    experiment_name,
    start_run,
    write_outcome,
    write_page,
)
from sparseml.run.session import Found, Glue, OneShotRunSettings, Session
from sparseml.run.settings.groups import RunSettings
from sparseml.run.sweep import Pruned, asked_sparsities, sweep_recipe
from sparseml.utils.locks import FolderLock

OLD_NORMS = (
    "Batch norms hold the statistics of the dense model, which can cost more than the pruning "
    "does; --bn-retune measures them anew."
)

Row = dict[str, Any]


def run_one_shot(settings: OneShotRunSettings, glue: Glue) -> None:
    """Evaluate the dense model, then a copy pruned to each sparsity.

    :raises RunError: for what does not fit, and files that cannot be written
    """
    run = settings.run
    prepare(run.seed, run.threads)
    sparsities = asked_sparsities(settings.sweep.sparsities)
    load = functools.partial(load_recipe, run.sparseml_recipe, run.recipe_args, run.effort)
    first = load()  # before anything that takes time
    with processes(run.device, run.timeout) as where:
        require_same_everywhere({"the recipe": str(first), "--seed": run.seed})
        session = glue.open_session(settings, where)
        require_fitting_patterns(first, session.model, run.sparseml_recipe)
        batches = foretell(first, session, run) // where.count
        with contextlib.ExitStack() as stack:
            outcome = _Outcome(session, settings, stack) if where.is_first else None
            sampler = timed_sampler(session.grad_sampler(), batches, where.is_first)
            found = session.evaluate(session.model, "dense")
            if outcome:
                outcome.dense(found)
            if run.bn_retune:
                _tell_retuned(session, run)
            elif tracked_norms(session.model):
                say(OLD_NORMS, where.is_first)
            for pruned in sweep_recipe(load, session.model, sparsities, grad_sampler=sampler):
                if run.bn_retune:
                    inputs = session.training_batches()
                    retune_batch_norm(pruned.model, inputs, run.bn_retune, where)
                found = session.evaluate(pruned.model, _named(pruned.sparsity))
                if outcome:
                    outcome.add(pruned, found)
            if outcome:
                outcome.close()


def _tell_retuned(session: Session, run: RunSettings) -> None:
    """Say what measuring batch norms anew does to the dense model: next to nothing, or is wrong."""
    model, shown = copy.deepcopy(session.model), session.where.is_first
    if retune_batch_norm(model, session.training_batches(), run.bn_retune, session.where):
        found = session.evaluate(model, "dense, batch norms anew")
        told = "  ".join(metric.text(found) for metric in session.metrics)
        say(f"dense, batch norms measured anew  {told}", shown)
    else:
        say("--bn-retune: the model has no batch norms with running statistics", shown)


class _Outcome:
    """What the first process writes."""

    def __init__(
        self, session: Session, settings: OneShotRunSettings, stack: contextlib.ExitStack
    ) -> None:
        self.session, self.settings = session, settings
        self.folder = folder = experiment_folder(settings.run, session.model_name)
        if (folder / "results.json").exists() and not settings.run.overwrite:
            raise RunError(f"{folder} holds results: give --overwrite or another --experiment")
        self.rows: list[Row] = []
        self.runs: list[Path] = []
        self.config = settings.values()
        make_folder(folder)
        stack.callback(FolderLock(folder).release)
        self.loggers = stack.enter_context(service_loggers(settings.run, self.config, folder))

    def dense(self, found: Found) -> None:
        """Keep what the dense model is like."""
        self.variant = describe_dense(self.session, found)
        self._row(0.0, found, 0.0, "")

    def add(self, pruned: Pruned, found: Found) -> None:
        """Write the run directory of one sparsity."""
        settings, session = self.settings, self.session
        name = _named(pruned.sparsity)
        folder = self.folder / name.replace(" ", "=")
        title = f"{experiment_name(settings.run, session.model_name)} {name}"
        with start_run(folder, settings.run, self.config, session.packages, title) as run:
            run.write_recipe(pruned.manager)
            rounds = settings.sweep.latency_rounds
            weights = write_outcome(
                run, session, pruned, found, self.variant, session.model, rounds
            )
            if tracked_norms(pruned.model) and not settings.run.bn_retune:
                run.write_result(notes=[OLD_NORMS])
        self.runs.append(folder)
        zeros = pruned.zeros
        self._row(zeros if pruned.sparsity is None else pruned.sparsity, found, zeros, str(weights))

    def close(self) -> None:
        """Write table and report."""
        with atomic_text(self.folder / "table.txt") as file:
            file.write(self._table() + "\n")
        say(self._table())
        write_page(self.runs, self.folder, self.settings.run)

    def _row(self, sparsity: float, found: Found, zeros: float, file: str) -> None:
        measured = {metric.column: found[metric.name] for metric in self.session.metrics}
        row = {"sparsity": sparsity, **measured, "zeros": zeros, "file": file}
        self.rows.append(row)
        told = "  ".join(metric.text(found) for metric in self.session.metrics)
        say(f"sparsity {sparsity:.4f}  {told}")
        numbers = {key: value for key, value in row.items() if isinstance(value, float)}
        for logger in self.loggers:
            logger.log_scalars("one_shot", numbers, step=len(self.rows) - 1)
        write_rows(self.folder / "results.csv", self.rows)
        run = self.settings.run
        model = self.config.get("model", self.session.model_name)
        content = {"model": model, "recipe": run.sparseml_recipe, "seed": run.seed}
        with atomic_text(self.folder / "results.json") as out:
            json.dump({**content, "results": self.rows}, out, indent=2)

    def _table(self) -> str:
        metrics = self.session.metrics
        head = " | ".join(["sparsity", *(metric.head for metric in metrics), " zeros"])
        lines = [head, "-" * len(head)]
        for row in self.rows:
            sparsity = format(row["sparsity"], ".4g") if row["file"] else "dense"
            cells = [metric.cell(row[metric.column]) for metric in metrics]
            lines.append(" | ".join([f"{sparsity:>8}", *cells, f"{100 * row['zeros']:6.2f}"]))
        return "\n".join(lines)


def _named(sparsity: float | None) -> str:
    return "recipe" if sparsity is None else f"sparsity {sparsity:.4g}"
