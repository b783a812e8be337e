"""How accuracy in one shot grows with gradients, blocks and steps, and what that costs.

    python benchmarks/effort.py --models resnet20 small_vit

Prunes small networks by CAP, without training: each of the presets of ``effort``, and variations of
one number at a time around ``balanced``. Costs are seconds of one thread, whatever else the machine
does, and the training images that were drawn, those kept out to judge included; accuracies are
those of the first test images, with the statistics of batch norms as they were or measured anew on
training images, whichever is higher.

What is found goes to ``results/effort.json``, point by point, and to ``docs/images/effort.svg``;
``--draw`` only draws. Points that are there are not measured again, except with ``--again``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from _cifar import ROOT, accuracy, images, load, retune_norms, sampler
from _timing import RESULTS, write_result
from sparseml.pytorch.optim.new_recipe import params_to_prune
from sparseml.pytorch.sparsification.pruning import CAPruningModifier
from sparseml.pytorch.sparsification.pruning.settings.effort import PRESETS

PICTURE = ROOT / "docs/images/effort.svg"
HELD_BACK = 2000  # training images that measure batch norms, and no gradient
BATCH = 64  # images at a time; of these each gives a gradient
BASE = PRESETS["balanced"]
POINTS: dict[str, dict[str, Any]] = {
    **{f"effort: {name}": values for name, values in PRESETS.items()},
    "1 step": {**BASE, "num_recomputations": 1},
    "8 steps": {**BASE, "num_recomputations": 8},
    "256 gradients": {**BASE, "num_grads": 256},
    "4096 gradients": {**BASE, "num_grads": 4096},
    "blocks of 32": {**BASE, "fisher_block_size": 32},
    "blocks of 256": {**BASE, "fisher_block_size": 256},
    "batches of 16": {**BASE, "fisher_samples": "batch"},
    "steps along a line": {**BASE, "recomputation_inter_func": "linear"},
}
"""What is measured → its fields."""
MARKS = "o s D ^ v < > p h 8 *".split()  # noqa: SIM905


def measure(name: str, sparsity: float, fields: dict[str, Any], tests: int) -> dict[str, Any]:
    """Prune a network once, and tell what it took and what is left of it."""
    model = load(name)
    train, test = images(model, "train"), images(model, f"test[:{tests}]")
    data = (train[0][:-HELD_BACK], train[1][:-HELD_BACK])
    size = 16 if fields["fisher_samples"] == "batch" else BATCH
    given = sampler(data, size)
    drawn = 0

    def counted() -> Iterator[Any]:
        nonlocal drawn
        for batch in given["data_loader_builder"]():
            drawn += len(batch[2])
            yield batch

    when = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}
    goal = {"init_sparsity": sparsity, "final_sparsity": sparsity, "global_sparsity": True}
    modifier = CAPruningModifier(params=params_to_prune(model), **when, **goal, **fields)
    start = time.process_time()
    modifier.initialize(model, float("inf"), grad_sampler={**given, "data_loader_builder": counted})
    seconds = time.process_time() - start
    modifier.finalize(model)
    found = {"kept": accuracy(model, test)}
    if any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
        retune_norms(model, train[0][-HELD_BACK:])
        found["anew"] = accuracy(model, test)
    told = {key: round(100 * value, 2) for key, value in found.items()}
    return {**told, "seconds": round(seconds, 1), "images": drawn, "notes": modifier.notes}


def draw(networks: dict[str, Any]) -> None:
    """Accuracy over seconds and over images, the presets joined by a line."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = PICTURE.stem  # the same results give the same file
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(
        len(networks), 2, figsize=(9, 3.4 * len(networks)), layout="constrained", squeeze=False
    )
    for row, (name, content) in zip(rows, networks.items(), strict=True):
        for panel, cost in zip(row, ("seconds", "images"), strict=True):
            points = {
                key: (point[cost], max(point["kept"], point.get("anew", 0.0)))
                for key, point in content["points"].items()
            }
            presets = sorted(point for key, point in points.items() if key.startswith("effort"))
            panel.plot(*zip(*presets, strict=True), color="gray", lw=1, zorder=0)
            for mark, (key, (x, y)) in zip(MARKS, points.items(), strict=False):
                panel.plot([x], [y], mark, label=key)
            panel.set(xlabel=cost, ylabel=f"{name} at {content['sparsity']:.0%}: accuracy, %")
            panel.set_xscale("log")
            panel.grid(alpha=0.3)
        row[1].legend(fontsize=7)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    """Measure what is missing, and draw all."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--models", nargs="*", default=["resnet20", "small_vit"])
    parser.add_argument("--points", nargs="*", default=list(POINTS), choices=list(POINTS))
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--draw", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "effort.json"
    networks = json.loads(file.read_text()).get("networks", {}) if file.exists() else {}
    for name in () if args.draw else args.models:
        blank = {"sparsity": args.sparsity, "test_images": args.test, "points": {}}
        content = networks.setdefault(name, blank)
        for key in args.points:
            if key in content["points"] and not args.again:
                continue
            point = measure(name, args.sparsity, POINTS[key], args.test)
            content["points"][key] = point
            print(name, key, {k: v for k, v in point.items() if k != "notes"}, flush=True)
            write_result("effort", {"networks": networks})
    draw(networks)
    print(PICTURE)


if __name__ == "__main__":
    main()
