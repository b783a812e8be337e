"""Compare all pruners in one shot, without training, on real data and over several seeds.

    python research/one_shot_study.py --data FOLDER

Calls ``one_shot_pruning.py`` for every network, pruner and seed. The repository has the results
(``research/results/one_shot.md``); ``--again`` finds them anew. They go to ``one_shot.json`` below
``--out``, ``runs/one_shot_study`` by default, as they are found, and what is there is not computed
again, so that a study that was stopped goes on, and several processes can work at once
(``--tasks``). At the end, or alone with ``--render``, a table (``.md``) and a plot (``.svg``) are
written beside it; those of the repository change only by ``--out research/results``.

Blocks of 64 weights and a dampening of 1e-6, batch norms as they were, are what the results were
found with, and no advice: with the values of the recipes CAP keeps more (``docs/second_order.md``).
``--tuned`` takes those, and batch norms measured anew where that lowers the loss, for all pruners:
its results are ``one_shot_tuned.json``, and its table has the old figures beside them. ``--quick``
finds 80% and 90% by one seed on CIFAR-10.

CIFAR-10: gradients on 20,000 training images, accuracies on all 10,000 test images. ImageNet:
1,000 validation images, of which 400 are for gradients and the other 600 for accuracies.
"""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_results import COMMITTED, StudyResults, beside, settle
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
# how these networks were trained; batch norms are measured on such images
_CROPS = ["--crop-padding", "4", "--color-jitter", "0"]
AS_TRAINED = {"resnet20": _CROPS, "resnet56": _CROPS, "small_vit": _CROPS}
TUNED_SETTINGS = {
    **SETTINGS,
    "recipe_variables": "those of the recipes, but for the number of gradients",
    "batch_norms": "measured anew where that lowers the loss on held-out training images",
    "flags": {
        name: " ".join([*task.flags, *AS_TRAINED.get(name, [])]) for name, task in TASKS.items()
    },
}


def main() -> None:
    """Do what is left to do, then show it."""
    parser = study_parser((__doc__ or "").partition("\n")[0], "one_shot_study")
    parser.add_argument("--pruners", nargs="+", choices=PRUNERS, default=list(PRUNERS))
    parser.add_argument("--tuned", action="store_true", help="by today's defaults")
    parser.add_argument("--quick", action="store_true", help="80%% and 90%%, one seed, CIFAR-10")
    args = parser.parse_args()
    settle(args)
    if args.quick:
        args.seeds, args.tasks = args.seeds[:1], [name for name in args.tasks if name in AS_TRAINED]
    sparsities = [s for s in SPARSITIES if not args.quick or s in (0.8, 0.9)]
    settings = TUNED_SETTINGS if args.tuned else SETTINGS
    results = StudyResults.of(f"one_shot{'_tuned' if args.tuned else ''}", args, settings)
    jobs = [
        (name, pruner, seed)
        for seed in args.seeds
        for name in args.tasks
        for pruner in args.pruners
        if PRUNERS[pruner].samples or seed == 0
    ]
    left = [job for job in jobs if results.missing(*job, sparsities)]
    if not args.render:
        cells = sum(len(results.missing(*job, sparsities)) for job in left)
        results.tell(len(jobs) * len(sparsities), cells)
        if left:
            require_data(args)
        for job in left:
            run(args, results, *job, sparsities)
    render(results, args.tuned)


def run(
    args: Namespace,
    results: StudyResults,
    name: str,
    pruner: str,
    seed: int,
    sparsities: Sequence[float],
) -> None:
    """Run the script for what is missing."""
    wanted = results.missing(name, pruner, seed, sparsities)
    print(f"{name}: {PRUNERS[pruner].title}, seed {seed}, at {wanted}", flush=True)
    chosen = PRUNERS[pruner]
    folder = args.runs / name / f"{pruner}_seed={seed}"
    flags = ["--sparsities", *map(str, wanted), "--latency-rounds", "0", "--gs-no-training"]
    flags += AS_TRAINED.get(name, []) if args.tuned else ["--bn-retune", "0"]
    variables = {} if args.tuned else dict(chosen.variables)
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
        norms = {kind: found[f"val/acc bn {kind}"] for kind in ("old", "new") if _both(found)}
        results.add({**row, "accuracy": found["val/acc"], "zeros": found["zeros"], **norms})


def _both(found: dict[str, Any]) -> bool:
    return "val/acc bn new" in found


def render(results: StudyResults, tuned: bool) -> None:
    """Write table and plot."""
    models = {name: task.title for name, task in TASKS.items()}
    titles = {name: pruner.title for name, pruner in PRUNERS.items()}
    if not tuned:
        results.show(models, titles, SPARSITIES, PAGE, notes=NOTES)
    elif rows := results.rows():
        before = json.loads((COMMITTED / "one_shot.json").read_text())["results"]
        results.publish(beside(before, rows, models, titles, SPARSITIES), PAGE)


if __name__ == "__main__":
    sys.exit(run_reported(main))
