"""Train a small vision transformer on handwritten digits, prune it in six ways, compare.

    python integrations/demo/digits.py [--seed 0] [--out runs/demo] [--smoke]

Every run leaves a directory below ``--out`` (docs/run_directory.md): the recipe as it was resolved,
the model, what was measured and, where it trained, its metrics as JSON lines. Beside them lie
``report.html`` (with ``report.json`` and ``report.md``), ``results.json``, ``environment.json``,
``curves.png`` and ``table.txt``. The same seed gives the same accuracies.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from display import gains, notes, plot, table
from rich.console import Console
from runs import LATENCY_BATCH, Runs
from task import load_task

from sparseml.report import describe_environment, write_report
from sparseml.run.errors import run_reported

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
GRADUAL = 0.9
LATENCY_ROUNDS = 40


def main(argv: list[str] | None = None) -> None:
    """Do all runs, then show the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of data split, weights and batches")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where results go")
    parser.add_argument("--smoke", action="store_true", help="everything, but hardly any training")
    options = parser.parse_args(argv)
    if not 0 <= options.seed < 2**32:
        parser.error(f"--seed must be at least 0 and below 2**32, found {options.seed}")
    start, console = time.monotonic(), Console()
    # results would otherwise depend on the number of cores; so small a model gains nothing by more
    torch.set_num_threads(1)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out} cannot be a directory: {error.strerror}")
    environment = describe_environment(["timm", "scikit-learn"])
    asked = {"seed": options.seed, "smoke": options.smoke}
    write_json(options.out / "environment.json", {**asked, **environment})

    runs = Runs(options.out, load_task(options.seed), options.seed, console)
    short = {"num_epochs": 2.0} if options.smoke else {}
    sparsities = SPARSITIES[::4] if options.smoke else SPARSITIES
    runs.dense(short)
    runs.one_shot("one-shot uniform", "one_shot_magnitude", sparsities)
    runs.one_shot("one-shot global", "one_shot_global_magnitude", sparsities)
    runs.one_shot("one-shot FastCAP", "one_shot_fast_cap", sparsities)
    runs.one_shot("one-shot CAP", "one_shot_cap", sparsities)
    runs.gradual("gradual global", "gradual_global_magnitude", {"sparsity": GRADUAL, **short})
    rounds = 3 if options.smoke else LATENCY_ROUNDS
    runs.structured("structured", "structured", short)
    runs.measure_latency(rounds)

    write_json(options.out / "results.json", {"seed": options.seed, "runs": runs.results})
    plot(runs.results, runs.histories, options.out / "curves.png")
    first, shown = gains(runs.results), table(runs.results)
    explained = notes(runs.results, LATENCY_BATCH, len(runs.digits.test_labels))
    console.print(first, shown)
    console.print(explained, highlight=False, soft_wrap=True)
    console.print(
        f"{options.out} holds the models, recipes, metrics and curves; "
        f"all of it took {time.monotonic() - start:.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    with (options.out / "table.txt").open("w", encoding="utf-8") as file:
        Console(file=file, width=100).print(first, shown, explained)
    report = write_report([run.path for run in runs.folders.values()], options.out)
    console.print(f"report: {report.html}", highlight=False, soft_wrap=True)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_reported(main))
