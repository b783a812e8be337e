"""Compare all pruners in one shot, on real data, over several seeds.

    python research/one_shot_study.py --data FOLDER --task resnet20 --seeds 0 1 2

Runs ``one_shot_pruning.py`` for every pruner and seed, one after another, and gathers the results
in ``research/results/one_shot/<task>.json`` with a table (``.md``) and a plot (``.svg``). Runs that
have been done are not done again, so that a study that was stopped goes on. The folder of data
holds ``cifar10/`` (two grids of images, ``research/datasets/image_grid.py``) and ``weights/``.

Gradients are sampled on the training images, accuracies are of the whole test set.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "research" / "results" / "one_shot"
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
BATCH = 16


@dataclass(frozen=True)
class Task:
    """A trained model and the recipes that fit it."""

    model: str
    weights: str
    family: str


@dataclass(frozen=True)
class Pruner:
    """A recipe with its variables; one that samples nothing needs one seed."""

    name: str
    recipe: str
    variables: dict[str, Any]

    @property
    def samples(self) -> bool:
        """Whether results depend on the seed."""
        return self.recipe != "gm"


TASKS = {
    "resnet20": Task("research.models.cifar_resnet:resnet20", "cifar10_resnet20", "resnet"),
    "resnet56": Task("research.models.cifar_resnet:resnet56", "cifar10_resnet56", "resnet"),
    "small_vit": Task("research.models.small_vit:small_vit", "cifar10_vit_d4_w128", "vit"),
}
FISHER = {"num_grads": 512, "fisher_block_size": 64, "damp": 1e-6}
PRUNERS = (
    Pruner("global magnitude", "gm", {}),
    Pruner("gradient x weight", "gw", {"num_grads": 512}),
    Pruner("M-FAC", "mfac", {"num_grads": 512, "fisher_block_size": 512, "damp": 1e-6}),
    Pruner("OBS", "obs", FISHER),
    Pruner("FastCAP", "fast_cap", {**FISHER, "damp": 1e-2}),
    Pruner("CAP", "cap", FISHER),
)


def main() -> None:
    """Do what is left to do, then gather."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--task", choices=TASKS, default="resnet20")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pruners", nargs="+", choices=[p.recipe for p in PRUNERS], metavar="P")
    parser.add_argument("--out", type=Path, default=Path("runs/one_shot_study"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    args.data, args.out = args.data.absolute(), args.out.absolute()
    chosen = [pruner for pruner in PRUNERS if pruner.recipe in (args.pruners or [pruner.recipe])]
    for seed in args.seeds:
        for pruner in chosen:
            if pruner.samples or seed == args.seeds[0]:
                run(args, pruner, seed)
                gather(args)


def folder(args: argparse.Namespace, pruner: Pruner, seed: int) -> Path:
    """Where a run goes."""
    return args.out / args.task / f"{pruner.recipe}_seed={seed}"


def run(args: argparse.Namespace, pruner: Pruner, seed: int) -> None:
    """Run the script unless it has been run."""
    path, task = folder(args, pruner, seed), TASKS[args.task]
    done = path / "results.json"
    if done.exists() and len(json.loads(done.read_text())["results"]) > len(SPARSITIES):
        return
    recipe = ROOT / "recipes/timm/one_shot" / pruner.recipe / f"{task.family}.yaml"
    command = [sys.executable, str(ROOT / "research/one_shot_pruning.py")]
    command += ["--model", task.model, "--dataset", "research.datasets.image_grid:cifar10"]
    command += ["--checkpoint", str(args.data / "weights" / f"{task.weights}.safetensors")]
    command += ["--data-dir", str(args.data / "cifar10"), "--sparseml-recipe", str(recipe)]
    command += ["--recipe-args", json.dumps(pruner.variables), "--seed", str(seed)]
    command += ["--output", str(path.parent), "--experiment", path.name, "--overwrite"]
    command += ["-gb", str(BATCH), "--gs-no-training", "-vb", "50", "--workers", "0"]
    command += ["--threads", str(args.threads), "--latency-rounds", "0", "--no-report"]
    command += ["--sparsities", *map(str, SPARSITIES)]
    print(f"{args.task}: {pruner.name}, seed {seed}", flush=True)
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)


def gather(args: argparse.Namespace) -> None:
    """Write JSON, table and plot of what there is."""
    found: dict[str, dict[str, list[float]]] = {}
    dense = None
    for pruner in PRUNERS:
        for path in sorted(folder(args, pruner, 0).parent.glob(f"{pruner.recipe}_seed=*")):
            if not (path / "results.json").exists():
                continue
            rows = json.loads((path / "results.json").read_text())["results"]
            if len(rows) <= len(SPARSITIES):
                continue
            dense = rows[0]["val/acc"]
            for row in rows[1:]:
                at = found.setdefault(pruner.name, {}).setdefault(f"{row['sparsity']:g}", [])
                at.append(row["val/acc"])
    if dense is None:
        return
    task = TASKS[args.task]
    content = {
        "model": task.model,
        "weights": task.weights,
        "data": "CIFAR-10: gradients on 20,000 training images, accuracy on 10,000 test images",
        "batch": BATCH,
        "recipe_variables": {pruner.name: pruner.variables for pruner in PRUNERS},
        "dense": dense,
        "top1": found,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{args.task}.json").write_text(json.dumps(content, indent=1) + "\n")
    (RESULTS / f"{args.task}.md").write_text(table(args.task, content))
    plot(RESULTS / f"{args.task}.svg", args.task, content)


def table(name: str, content: dict[str, Any]) -> str:
    """Mean accuracy in per cent, with the standard deviation over the seeds."""
    keys = [f"{sparsity:g}" for sparsity in SPARSITIES]
    lines = [
        f"# {name}: one shot, no fine-tuning",
        "",
        f"Top-1 on the test set in %, dense {100 * content['dense']:.2f}. {content['data']}; "
        f"batches of {content['batch']}. Mean ± standard deviation over seeds of the sampling.",
        "",
        f"| pruner | seeds | {' | '.join(f'{float(key):.0%}' for key in keys)} |",
        f"|---|---|{'---|' * len(keys)}",
    ]
    for pruner, values in content["top1"].items():
        cells = " | ".join(_cell(values[key]) for key in keys)
        lines.append(f"| {pruner} | {len(values[keys[0]])} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    mean = f"{100 * statistics.mean(values):.2f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.2f}"


def plot(path: Path, name: str, content: dict[str, Any]) -> None:
    """Accuracy over sparsity."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = name  # the same results give the same file
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(100 * content["dense"], color="gray", linestyle=":", label="dense")
    for pruner, values in content["top1"].items():
        means = [100 * statistics.mean(found) for found in values.values()]
        spread = [100 * statistics.pstdev(found) for found in values.values()]
        sparsities = [100 * float(key) for key in values]
        axes.errorbar(sparsities, means, spread, marker="o", capsize=2, label=pruner)
    axes.set(xlabel="sparsity, %", ylabel="top-1, %", title=f"{name}, one shot")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
