"""Compare all pruners in one shot, without training, on real data and over several seeds.

    python research/one_shot_study.py --data FOLDER

Calls ``one_shot_pruning.py`` for every network, pruner and seed. The repository has the results
(``research/results/one_shot.md``); ``--again`` finds them anew. They go to ``one_shot.json`` below
``--out``, ``runs/one_shot_study`` by default, as they are found, and what is there is not computed
again, so that a study that was stopped goes on, and several processes can work at once
(``--tasks``). At the end, or alone with ``--render``, a table (``.md``) and a plot (``.svg``) are
written beside it; those of the repository change only by ``--out research/results``.

Blocks of 64 weights and a dampening of 1e-6 are what the results were found with, and no advice:
with the values of the recipes CAP keeps more (``docs/second_order.md``).

CIFAR-10: gradients on 20,000 training images, accuracies on all 10,000 test images. ImageNet:
1,000 validation images, of which 400 are for gradients and the other 600 for accuracies.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_results import StudyResults, settle
from study_tasks import PAGE, TASKS, call, require_data, study_parser

from sparseml.run.errors import run_reported

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FISHER = {"fisher_block_size": 64, "damp": 1e-6}


@dataclass(frozen=True)
class Pruner:
    """A line of the table.

    :param recipe: folder below ``recipes/timm/one_shot``
    :param variables: of the recipe, beside the number of gradients
    :param samples: whether it prunes by gradients, so that seeds matter
    """

    title: str
    recipe: str
    variables: dict[str, Any]
    samples: bool = True


PRUNERS = {
    "gm": Pruner("magnitude, global", "gm", {}, samples=False),
    "gw": Pruner("gradient x weight", "gw", {}),
    "mfac": Pruner("M-FAC", "mfac", {"fisher_block_size": 512, "damp": 1e-6}),
    "obs": Pruner("OBS", "obs", FISHER),
    "fast_cap": Pruner("FastCAP", "fast_cap", {**FISHER, "damp": 1e-2}),
    "cap": Pruner("CAP", "cap", FISHER),
}
KEPT = "batch norms hold the statistics of the dense network: this compares more than choices"
NOTES = {
    **dict.fromkeys(["resnet56", "mobilenetv1", "mobilenetv2"], KEPT),
    "resnet20": f"{KEPT}; measured anew, magnitude keeps 79% at 80%, 51% at 90%",
}
SETTINGS = {
    "gradients_and_images_each": {name: task.gradients for name, task in TASKS.items()},
    "flags": {name: " ".join(task.flags) for name, task in TASKS.items()},
    "recipe_variables": {pruner.title: pruner.variables for pruner in PRUNERS.values()},
    "cifar10": "20,000 training images for gradients, all 10,000 test images for accuracies",
    "imagenet": "1,000 validation images, 400 for gradients and 600 for accuracies",
}


def main() -> None:
    """Do what is left to do, then show it."""
    parser = study_parser((__doc__ or "").partition("\n")[0], "one_shot_study")
    parser.add_argument("--pruners", nargs="+", choices=PRUNERS, default=list(PRUNERS))
    args = parser.parse_args()
    settle(args)
    results = StudyResults.of("one_shot", args, SETTINGS)
    jobs = [
        (name, pruner, seed)
        for seed in args.seeds
        for name in args.tasks
        for pruner in args.pruners
        if PRUNERS[pruner].samples or seed == 0
    ]
    left = [job for job in jobs if results.missing(*job, SPARSITIES)]
    if not args.render:
        cells = sum(len(results.missing(*job, SPARSITIES)) for job in left)
        results.tell(len(jobs) * len(SPARSITIES), cells)
        if left:
            require_data(args)
        for job in left:
            run(args, results, *job)
    render(results)


def run(args: Namespace, results: StudyResults, name: str, pruner: str, seed: int) -> None:
    """Run the script for what is missing."""
    wanted = results.missing(name, pruner, seed, SPARSITIES)
    print(f"{name}: {PRUNERS[pruner].title}, seed {seed}, at {wanted}", flush=True)
    chosen = PRUNERS[pruner]
    folder = args.runs / name / f"{pruner}_seed={seed}"
    flags = ["--sparsities", *map(str, wanted), "--latency-rounds", "0", "--gs-no-training"]
    variables = dict(chosen.variables)
    if chosen.samples:
        variables["num_grads"] = TASKS[name].gradients[0]
    recipe = f"one_shot/{chosen.recipe}"
    call("one_shot_pruning.py", TASKS[name], args, recipe, variables, seed, folder, flags)
    gather(results, name, pruner, seed, folder)


def gather(results: StudyResults, name: str, pruner: str, seed: int, folder: Path) -> None:
    """Add what a run has found."""
    dense, *rows = json.loads((folder / "results.json").read_text())["results"]
    row = {"model": name, "method": "dense", "seed": 0, "sparsity": 0.0}
    results.add({**row, "accuracy": dense["val/acc"]})
    for found in rows:
        row = {"model": name, "method": pruner, "seed": seed, "sparsity": found["sparsity"]}
        results.add({**row, "accuracy": found["val/acc"], "zeros": found["zeros"]})


def render(results: StudyResults) -> None:
    """Write table and plot."""
    models = {name: task.title for name, task in TASKS.items()}
    titles = {name: pruner.title for name, pruner in PRUNERS.items()}
    results.show(models, titles, SPARSITIES, PAGE, notes=NOTES)


if __name__ == "__main__":
    sys.exit(run_reported(main))
