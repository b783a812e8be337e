"""What an automatic dampening is worth: a grid of fixed ones, the automatic one, and its price.

    python benchmarks/dampening.py --models resnet20 small_vit

Prunes small networks in one shot, without training, by CAP and OBS with every decade of
``relative_damp`` and with ``damp: auto``. The grid shares one Fisher matrix; the automatic choice
has its own run, with as many gradients. Accuracies are those of the first test images, once with
the statistics of batch norms as they were and once measured anew on training images; of the two
the higher counts. What the choice costs is the time of its run against that of a fixed dampening,
in seconds of one thread, whatever else the machine does.

What is found goes to ``results/dampening.json``, network by network.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from _cifar import accuracy, images, load, retune_norms, sampler
from _timing import RESULTS, write_result
from sparseml.pytorch.functional.second_order.dampening import HIGHEST, LOWEST
from sparseml.pytorch.optim.new_recipe import params_to_prune
from sparseml.pytorch.sparsification.pruning import CAPruningModifier, OBSPruningModifier
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome

METHODS = {"cap": CAPruningModifier, "obs": OBSPruningModifier}
HELD_BACK = 2000  # training images that measure batch norms, and no gradient
Data = tuple[torch.Tensor, torch.Tensor]


def modifier_of(method: str, model: nn.Module, args: argparse.Namespace, **more: Any) -> Any:
    """A pruner as the recipes have it."""
    given = {"params": params_to_prune(model), "num_grads": args.grads, "global_sparsity": True}
    given |= {"fisher_block_size": args.block, "start_epoch": 0.0, "end_epoch": 1.0}
    goal = {"init_sparsity": 0.5, "final_sparsity": 0.5, "update_frequency": 1.0}
    return METHODS[method](**given, **goal, **more)


def outcomes_of_grid(
    method: str, model: nn.Module, data: Data, args: argparse.Namespace, sums: list[Any]
) -> Iterator[tuple[int, float, list[Outcome]]]:
    """The outcome of every sparsity at every decade, and the seconds that took.

    :param sums: of products of gradients, empty before the first
    """
    modifier = modifier_of(method, model, args)
    modifier.initialize(model, grad_sampler=sampler(data, args.batch))
    problem = modifier.problem(model)
    for decade in range(LOWEST, HIGHEST + 1):
        start = time.process_time()
        found = modifier.method.fixed(10.0**decade, sums).decide(problem, args.sparsities)
        yield decade, time.process_time() - start, found
    modifier.finalize(model)


def measured(name: str, outcome: Outcome, train: Data, test: Data) -> dict[str, float]:
    """Accuracy with statistics as they were, and measured anew."""
    model = load(name)
    outcome.write(model)
    found = {"kept": accuracy(model, test)}
    if any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
        retune_norms(model, train[0][-HELD_BACK:])
        found["anew"] = accuracy(model, test)
    return {key: round(100 * value, 2) for key, value in found.items()}


def study(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Grid and automatic choice of one network."""
    model, train = load(name), images(load(name), "train")
    test = images(model, f"test[:{args.test}]")
    data = (train[0][:-HELD_BACK], train[1][:-HELD_BACK])
    dense = accuracy(model, test)
    content: dict[str, Any] = {"dense": round(100 * dense, 2), "test_images": args.test}
    content["sampling_error"] = round(100 * math.sqrt(0.25 * 0.75 / args.test), 2)
    sums: list[Any] = []
    for method in args.methods:
        shared = bool(sums)
        grid: dict[str, dict[str, Any]] = {str(one): {} for one in args.sparsities}
        seconds = []
        for decade, taken, found in outcomes_of_grid(method, model, data, args, sums):
            seconds.append(taken)
            for sparsity, outcome in zip(args.sparsities, found, strict=True):
                grid[str(sparsity)][f"1e{decade}"] = measured(name, outcome, train, test)
            print(name, method, decade, [grid[str(s)][f"1e{decade}"] for s in args.sparsities])
        if not shared:
            content["seconds_sampling"] = round(seconds[0] - min(seconds[1:]), 1)
        each = sum(seconds[1:]) / len(seconds[1:])
        auto = {}
        for sparsity in args.sparsities:
            modifier = modifier_of(method, model, args, damp="auto")
            start = time.process_time()
            outcome = modifier.outcome(model, sparsity, grad_sampler=sampler(data, args.batch))
            taken = time.process_time() - start
            fixed = content["seconds_sampling"] + each
            auto[str(sparsity)] = {
                **measured(name, outcome, train, test),
                "seconds": round(taken, 1),
                "price": round(taken / fixed - 1, 2),
                "note": outcome.notes[0],
            }
        content[method] = {"grid": grid, "auto": auto, "seconds_each": round(each, 1)}
        for sparsity, found in auto.items():
            best = max(max(cell.values()) for cell in grid[sparsity].values())
            mine = max(found["kept"], found.get("anew", 0.0))
            found["behind_best"] = round(best - mine, 2)
            print(name, method, sparsity, found)
    return content


def main() -> None:
    """Study what is asked for, and add it to what there is."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--models", nargs="*", default=["resnet20", "small_vit", "resnet56"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--sparsities", type=float, nargs="*", default=[0.8, 0.9])
    parser.add_argument("--grads", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--test", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "dampening.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    networks = known.get("networks", {})
    for name in args.models:
        settings = {"gradients": args.grads, "batch_size": args.batch, "block_size": args.block}
        networks[name] = {**settings, **study(name, args)}
        print(write_result("dampening", {"networks": networks}))


if __name__ == "__main__":
    main()
