"""Pruning in one shot, without training, to one or several sparsities, and evaluating each.

Every sparsity gets a run directory below ``<output>/<experiment>``: ``model.safetensors``, the
packed masks in ``masks.safetensors``, the recipe as it was applied and what was measured. Beside
them lie ``results.csv``, ``results.json``, ``table.txt`` and ``report.html``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from pathlib import Path
from typing import Any

from sparseml.pytorch.sparsification.statistics import (
    UNLIKE,
    Judged,
    StatisticsTuner,
    Unfit,
    slight,
    tunable_norms,
)
from sparseml.run.batch_norm import tuner_of
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
    "does{reason}."
)
_OLD, _NEW = "bn old", "bn new"  # of columns: with the statistics as they were, and anew

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
            norms = _Norms(session, run)
            both = norms.of_dense(found)
            if outcome:
                outcome.dense(found, both, norms.note)
            for pruned in sweep_recipe(load, session.model, sparsities, grad_sampler=sampler):
                found, both = norms.tuned(pruned)
                if outcome:
                    outcome.add(pruned, found, both)
            if outcome:
                outcome.close()


Both = tuple[Found, Found]
"""What evaluations found with running statistics as they were, and measured anew."""


class _Norms:
    """Batch norms of a run, measured anew after each pruning where that does good.

    :ivar note: why they are left as they were, if that matters; else empty
    """

    def __init__(self, session: Session, run: RunSettings) -> None:
        self.session, self.note = session, ""
        self._shown = session.where.is_first
        self._tuner: StatisticsTuner | None = tuner_of(session, run)
        if self._tuner is None and tunable_norms(session.model):
            self._leave("; --bn-retune measures them anew")

    def of_dense(self, found: Found) -> Both | None:
        """Say what measuring anew does to the dense model; if that is not next to nothing, or it
        cannot be done, all models keep their statistics."""
        if self._tuner is None:
            return None
        try:
            judged = self._tuner.check(self.session.model)
        except Unfit as reason:
            self._tuner = None
            self._leave(f", but {reason}")
            return None
        say(f"batch norms {judged.told}", self._shown)
        with judged.other():
            anew = self.session.evaluate(self.session.model, "dense, batch norms anew")
        told = "  ".join(metric.text(anew) for metric in self.session.metrics)
        say(f"dense, batch norms measured anew  {told}", self._shown)
        was, now = (one.get("loss", 0.0) for one in (found, anew))
        if not now - was <= slight(was):
            self._tuner = None
            told = f"measured anew they take the validation loss from {was:.4f} to {now:.4f}"
            self._leave(f", but {told}{UNLIKE}")
            return None
        return found, anew

    def tuned(self, pruned: Pruned) -> tuple[Found, Both | None]:
        """Return what the pruned model can do with the better statistics, which it has then, and
        what with either."""
        evaluate = functools.partial(self.session.evaluate, pruned.model)
        judged: Judged | None = None
        if self._tuner is not None:
            try:
                judged = self._tuner.tune(pruned.model)
            except Unfit as reason:
                told = f"{_named(pruned.sparsity)}: batch norms stay as they were: {reason}"
                say(told, self._shown)
        found = evaluate(_named(pruned.sparsity))
        if judged is None:
            return found, None
        say(f"{_named(pruned.sparsity)}: {judged.told}", self._shown)
        with judged.other():
            other = evaluate(f"{_named(pruned.sparsity)}, other batch norms")
        return found, (other, found) if judged.kept else (found, other)

    def _leave(self, reason: str) -> None:
        self.note = OLD_NORMS.format(reason=reason)
        say(self.note, self._shown)


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

    def dense(self, found: Found, both: Both | None, note: str) -> None:
        """Keep what the dense model is like.

        :param note: for all runs
        """
        self.variant = describe_dense(self.session, found)
        self.note = note
        self._row(0.0, found, both, 0.0, "")

    def add(self, pruned: Pruned, found: Found, both: Both | None) -> None:
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
            if notes := [self.note] if self.note else self._compared(found, both):
                run.write_result(notes=notes)
        self.runs.append(folder)
        zeros = pruned.zeros
        asked = zeros if pruned.sparsity is None else pruned.sparsity
        self._row(asked, found, both, zeros, str(weights))

    def close(self) -> None:
        """Write table and report."""
        with atomic_text(self.folder / "table.txt") as file:
            file.write(self._table() + "\n")
        say(self._table())
        write_page(self.runs, self.folder, self.settings.run)

    def _compared(self, found: Found, both: Both | None) -> list[str]:
        """Return what running statistics as they were and anew make of a model, in words."""
        if both is None:
            return []
        old, new = ("  ".join(one.text(some) for one in self.session.metrics) for some in both)
        kept = "new ones" if found is both[1] else "old ones"
        return [
            f"Batch norms with the statistics of the dense model: {old}; measured anew: {new}. "
            f"The {kept} lower the loss on held-out training data and are kept."
        ]

    def _row(
        self, sparsity: float, found: Found, both: Both | None, zeros: float, file: str
    ) -> None:
        metrics = self.session.metrics
        measured = {metric.column: found[metric.name] for metric in metrics}
        row = {"sparsity": sparsity, **measured, "zeros": zeros, "file": file}
        for name, one in zip((_OLD, _NEW), both or (), strict=False):
            row |= {f"{metric.column} {name}": one[metric.name] for metric in metrics}
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
        first = metrics[0]
        both = [name for name in (_OLD, _NEW) if f"{first.column} {name}" in self.rows[0]]
        head = " | ".join(["sparsity", *(metric.head for metric in metrics), " zeros", *both])
        lines = [head, "-" * len(head)]
        for row in self.rows:
            sparsity = format(row["sparsity"], ".4g") if row["file"] else "dense"
            cells = [metric.cell(row[metric.column]) for metric in metrics]
            # a model may have lost its figures: tuned norms that see single values have none
            also = [row.get(f"{first.column} {name}", math.nan) for name in both]
            cells += [f"{100 * row['zeros']:6.2f}", *map(first.cell, also)]
            lines.append(" | ".join([f"{sparsity:>8}", *cells]))
        return "\n".join(lines)


def _named(sparsity: float | None) -> str:
    return "recipe" if sparsity is None else f"sparsity {sparsity:.4g}"
