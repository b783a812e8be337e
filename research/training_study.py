"""Compare gradual pruning with one shot and fine-tuning, in equally many steps, on CIFAR-10.

    python research/training_study.py --data FOLDER

Calls ``sparse_training.py`` for every network, way of pruning, sparsity and seed. The repository
has the results (``research/results/sparse_training.md``); ``--again`` finds them anew, as in
``one_shot_study.py``. The accuracy is that of the last epoch, on all 10,000 test images. Blocks of
64 weights and a dampening of 1e-6 are what they were found with, and no advice.

Every run sees the 20,000 training images twice. Gradual runs prune where each half epoch begins,
along a cubic curve from 40 %, each time with a new cycle of the learning rate; one shot prunes at
the start and trains at a falling learning rate. Rates, batches and augmentation are the same for
all.
"""

from __future__ import annotations

import csv
import sys
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

from study_results import StudyResults, settle
from study_tasks import PAGE, TASKS, call, require_data, study_parser

from sparseml.run.errors import run_reported

SPARSITIES = (0.75, 0.9, 0.95)
TELLING_FIRST = (0.9, 0.95, 0.75)
EPOCHS, UPDATES = 2.0, 4
GRADIENTS = {"num_grads": 256, "fisher_block_size": 64, "damp": 1e-6}
RATES = {
    "resnet20": {"init_lr": 0.1, "final_lr": 1e-4},
    "small_vit": {"init_lr": 1e-3, "final_lr": 1e-5},
}
FLAGS = {
    "resnet20": "-b 64 --opt sgd --momentum 0.9 --weight-decay 1e-4",
    "small_vit": "-b 64 --opt adamw --weight-decay 1e-4",
}
AUGMENTATION = (
    "--scale 0.8 1.0 --ratio 0.9 1.1 --color-jitter 0 --smoothing 0 --train-interpolation bilinear"
)


@dataclass(frozen=True)
class Way:
    """A line of the table.

    :param recipe: folder below ``recipes/timm``
    :param variables: of the recipe, beside the rates
    """

    title: str
    recipe: str
    variables: dict[str, Any]


WAYS = {
    "gradual_gm": Way("magnitude, gradual", "gradual/gm", {"updates": UPDATES}),
    "one_shot_gm": Way("magnitude, one shot and fine-tuning", "one_shot+finetune/gm", {}),
    "one_shot_cap": Way("CAP, one shot and fine-tuning", "one_shot+finetune/cap", GRADIENTS),
    "gradual_cap": Way("CAP, gradual", "gradual/cap", {**GRADIENTS, "updates": UPDATES}),
}
SETTINGS = {
    "epochs": EPOCHS,
    "training_images": 20_000,
    "test_images": 10_000,
    "gradient_batch_size": 16,
    "recipe_variables": {way.title: way.variables for way in WAYS.values()},
    "rates": RATES,
    "flags": {name: " ".join([*TASKS[name].flags, own]) for name, own in FLAGS.items()},
    "augmentation": AUGMENTATION,
}


def main() -> None:
    """Do what is left to do, then show it."""
    parser = study_parser((__doc__ or "").partition("\n")[0], "training_study")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--sparsities", type=float, nargs="+", default=TELLING_FIRST)
    args = parser.parse_args()
    settle(args)
    results = StudyResults.of("sparse_training", args, SETTINGS)
    jobs = [
        (name, way, sparsity, seed)
        for seed in args.seeds
        for sparsity in args.sparsities
        for name in args.tasks
        for way in args.ways
        if name in RATES
    ]
    left = [job for job in jobs if results.missing(job[0], job[1], job[3], [job[2]])]
    if not args.render:
        results.tell(len(jobs), len(left))
        if left:
            require_data(args)
        for job in left:
            run(args, results, *job)
    render(results)


def run(
    args: Namespace, results: StudyResults, name: str, way: str, sparsity: float, seed: int
) -> None:
    """Train, and keep the accuracy of the last epoch."""
    print(f"{name}: {WAYS[way].title} to {sparsity:.0%}, seed {seed}", flush=True)
    folder = args.runs / name / f"{way}_{sparsity:g}_seed={seed}"
    target = "final_sparsity" if WAYS[way].recipe.startswith("gradual") else "sparsity"
    variables = {**WAYS[way].variables, **RATES[name], "num_epochs": EPOCHS, target: sparsity}
    flags = [*FLAGS[name].split(), *AUGMENTATION.split(), "--gs-no-aug"]
    call("sparse_training.py", TASKS[name], args, WAYS[way].recipe, variables, seed, folder, flags)
    with (folder / "summary.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    row = {"model": name, "method": way, "seed": seed, "sparsity": sparsity}
    results.add({**row, "accuracy": float(last["eval/top1"]), "zeros": float(last["sparsity"])})


def render(results: StudyResults) -> None:
    """Write table and plot."""
    models = {name: TASKS[name].title for name in RATES}
    titles = {name: way.title for name, way in WAYS.items()}
    results.show(models, titles, SPARSITIES, PAGE)


if __name__ == "__main__":
    sys.exit(run_reported(main))
