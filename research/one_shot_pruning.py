"""Prune a model in one shot, without training, to one or several sparsities, and evaluate each.

    python research/one_shot_pruning.py --model deit_tiny_patch16_224 --data-dir imagenet \\
        --sparseml-recipe recipes/timm/one_shot/cap/vit.yaml --sparsities 0.5 0.75 0.9

Every sparsity gets a run directory below ``<output>/<experiment>``: ``model.safetensors``, the
packed masks in ``masks.safetensors``, the recipe as it was applied and what was measured. Beside
them lie ``results.csv``, ``results.json``, ``table.txt`` and ``report.html``.
"""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from sparseml.run.results import (
    LATENCY_BATCH,
    describe_dense,
    experiment_folder,
    make_folder,
    start_run,
    write_latency,
    write_outcome,
    write_page,
)
from sparseml.run.service_logs import service_loggers
from sparseml.timm import (
    IGNORED_SETTINGS,
    Cut,
    RunError,
    Session,
    add_data_flags,
    add_model_flags,
    add_run_flags,
    add_sampler_flags,
    asked_sparsities,
    atomic_text,
    cuts,
    load_recipe,
    open_session,
    parse,
    prepare,
    processes,
    require_fitting_patterns,
    retune_batch_norm,
    run_reported,
    say,
    training_settings,
    write_masks,
)

FIELDS = ("sparsity", "val/acc", "val/acc5", "val/loss", "zeros", "file")
Row = dict[str, Any]


def arguments() -> Namespace:
    """The flags."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML of defaults for all flags")
    add_model_flags(parser)
    add_data_flags(parser)
    add_sampler_flags(parser, ("-gb", "--grad-sampler-batch-size", "--gs-batch-size"))
    add_run_flags(parser, "./output/one-shot")
    parser.add_argument("--sparsities", type=float, nargs="*", default=[], metavar="S")
    parser.add_argument("--save-model", action="store_true", help="no longer needed: always saved")
    parser.add_argument("--latency-rounds", type=int, default=10, help="0 takes no times")
    # the configuration of a training run may be given, too
    unused = {**IGNORED_SETTINGS, **vars(training_settings())}
    return parse(parser, sys.argv[1:], unused)[0]


def main() -> None:
    """Evaluate the dense model, then a copy pruned to each sparsity."""
    args = arguments()
    prepare(args)
    sparsities = asked_sparsities(args.sparsities)
    load_recipe(args.sparseml_recipe, args.recipe_args)
    with processes(args.device, args.timeout) as where:
        session = open_session(args, where)
        first = load_recipe(args.sparseml_recipe, args.recipe_args)
        require_fitting_patterns(first, session.model, args.sparseml_recipe)
        with contextlib.ExitStack() as stack:
            outcome = Outcome(session, stack) if where.is_first else None
            prune(session, sparsities, outcome)


def prune(session: Session, sparsities: list[float], outcome: Outcome | None) -> None:
    """Do all sparsities, and show them."""
    args, where = session.args, session.where
    found = session.evaluate(session.model, "dense")
    if outcome:
        outcome.dense(found)
    for cut in cuts(
        lambda: load_recipe(args.sparseml_recipe, args.recipe_args),
        session.model,
        sparsities,
        grad_sampler=session.grad_sampler(),
    ):
        if args.bn_retune:
            batches = session.plain_batches(args.gs_batch_size or args.val_batch_size)
            retune_batch_norm(cut.model, batches, args.bn_retune, where)
        found = session.evaluate(cut.model, _named(cut.sparsity))
        if outcome:
            outcome.add(cut, found)
    if outcome:
        outcome.close()


class Outcome:
    """What the first process writes."""

    def __init__(self, session: Session, stack: contextlib.ExitStack) -> None:
        self.session = session
        self.folder = folder = experiment_folder(session.args)
        if (folder / "results.json").exists() and not session.args.overwrite:
            raise RunError(f"{folder} holds results: give --overwrite or another --experiment")
        self.rows: list[Row] = []
        self.runs: list[Path] = []
        make_folder(folder)
        self.loggers = stack.enter_context(service_loggers(session.args, folder))

    def dense(self, found: dict[str, float]) -> None:
        """Keep what the dense model is like."""
        self.variant = describe_dense(self.session, found)
        self._row(0.0, found, 0.0, "")

    def add(self, cut: Cut, found: dict[str, float]) -> None:
        """Write the run directory of one sparsity."""
        args, session = self.session.args, self.session
        zeros = _zeros(cut)
        recipe = Path(args.sparseml_recipe)
        name = _named(cut.sparsity)
        folder = self.folder / name.replace(" ", "=")
        run = start_run(folder, args, f"{session.model_name} {name}", recipe.stem)
        with run:
            run.write_recipe(cut.manager)
            weights = write_outcome(run, session, cut.manager, self.variant, cut.model, found)
            write_masks(folder / "masks.safetensors", cut.masks)
            images = session.sample_images(LATENCY_BATCH)
            write_latency(run, session.model, cut.model, images, args.latency_rounds)
        self.runs.append(folder)
        self._row(zeros if cut.sparsity is None else cut.sparsity, found, zeros, str(weights))

    def close(self) -> None:
        """Write table and report."""
        with atomic_text(self.folder / "table.txt") as file:
            file.write(_table(self.rows) + "\n")
        say(_table(self.rows))
        write_page(self.runs, self.folder, self.session.args)

    def _row(self, sparsity: float, found: dict[str, float], zeros: float, file: str) -> None:
        values = (sparsity, found["top1"], found["top5"], found["loss"], zeros, file)
        row = dict(zip(FIELDS, values, strict=True))
        self.rows.append(row)
        say(_line(row))
        numbers = {key: value for key, value in row.items() if isinstance(value, float)}
        for logger in self.loggers:
            logger.log_scalars("one_shot", numbers, step=len(self.rows) - 1)
        args = self.session.args
        with atomic_text(self.folder / "results.csv") as out:
            writer = csv.DictWriter(out, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)
        content = {"model": args.model, "recipe": args.sparseml_recipe, "seed": args.seed}
        with atomic_text(self.folder / "results.json") as out:
            json.dump({**content, "results": self.rows}, out, indent=2)


def _zeros(cut: Cut) -> float:
    masked = sum(int((mask == 0).sum()) for mask in cut.masks.values())
    return masked / max(1, sum(mask.numel() for mask in cut.masks.values()))


def _named(sparsity: float | None) -> str:
    return "recipe" if sparsity is None else f"sparsity {sparsity:.4g}"


def _line(row: Row) -> str:
    return (
        f"sparsity {row['sparsity']:.4f}  top1 {row['val/acc']:.2%}  top5 {row['val/acc5']:.2%}  "
        f"loss {row['val/loss']:.4f}"
    )


def _table(rows: list[Row]) -> str:
    head = "sparsity |   top1 |   top5 |   loss |  zeros"
    lines = [
        f"{'dense' if not row['file'] else format(row['sparsity'], '.4g'):>8} | "
        f"{100 * row['val/acc']:6.2f} | {100 * row['val/acc5']:6.2f} | {row['val/loss']:6.3f} | "
        f"{100 * row['zeros']:6.2f}"
        for row in rows
    ]
    return "\n".join([head, "-" * len(head), *lines])


if __name__ == "__main__":
    sys.exit(run_reported(main))
