"""What is left of the lead of CAP over magnitude after both have been fine-tuned alike.

    python benchmarks/fine_tuning.py --model resnet20 --seeds 0 1

Prunes a small trained network in one shot, measures its batch norms anew, and trains it on for some
hundred steps with the masks fixed: by magnitude of all weights together, and by CAP with gradients
of the outputs or of the loss. All get the same images in the same order, augmented, and the same
rate along half a cosine; the rate was not tuned for any. A seed chooses the order and what CAP
samples. Accuracies are those of the first test images, before and after.

What is found goes to ``results/fine_tuning.json``, cell by cell; cells that are there are not found
again, except with ``--again``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from _cifar import accuracy, augmented, images, load, retune_norms, sampler
from _timing import RESULTS, write_result
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.optim.new_recipe import params_to_prune
from sparseml.pytorch.sparsification.param_selection import select_params
from sparseml.pytorch.sparsification.pruning import (
    CAPruningModifier,
    GlobalMagnitudePruningModifier,
)

METHODS = ("magnitude", "CAP, outputs", "CAP, loss")
HELD_BACK = 2000  # training images that measure batch norms, and that CAP does not sample
BATCH = 128
MASKS = "modifiers:\n  - !ConstantPruningModifier\n    params: __ALL_PRUNABLE__\n"


def prune(name: str, method: str, sparsity: float, train: tuple[Tensor, Tensor], seed: int) -> Any:
    """Return the network pruned in one shot, with batch norms measured anew."""
    model = load(name)
    when = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}
    goal = {"init_sparsity": sparsity, "final_sparsity": sparsity}
    fields: dict[str, Any] = {"params": params_to_prune(model), **when, **goal}
    lent: dict[str, Any] = {}
    if method == "magnitude":
        modifier: Any = GlobalMagnitudePruningModifier(**fields)
    else:
        fields |= {"num_grads": 1024, "fisher_block_size": 128, "fisher_samples": "auto"}
        fields |= {"damp": "auto", "layer_floor": 0.05, "gradients_of": method.split()[-1]}
        modifier = CAPruningModifier(global_sparsity=True, **fields)
        lent["grad_sampler"] = sampler((train[0][:-HELD_BACK], train[1][:-HELD_BACK]), 64, seed)
    modifier.initialize(model, float("inf"), **lent)
    modifier.finalize(model)
    retune_norms(model, train[0][-HELD_BACK:])
    return model


def fine_tune(
    model: nn.Module, train: tuple[Tensor, Tensor], steps: int, rate: float, seed: int
) -> None:
    """Train a pruned network on, its zeros staying zeros."""
    optimizer = torch.optim.SGD(
        model.parameters(), rate, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    manager = ScheduledModifierManager.from_yaml(MASKS)
    stepping = manager.modify(model, optimizer, steps_per_epoch=steps)
    order = torch.cat(
        [
            torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(1000 * seed + n))
            for n in range(-(-steps * BATCH // len(train[1])))
        ]
    )
    model.train()
    for step, chosen in enumerate(order[: steps * BATCH].split(BATCH)):
        inputs = augmented(train[0][chosen], 1000 * seed + step)
        optimizer.zero_grad()
        cross_entropy(model(inputs), train[1][chosen]).backward()
        stepping.step()
        falling.step()
    manager.finalize(model)


def zeros(model: nn.Module) -> float:
    """The fraction of zeros in what all methods prune."""
    found = select_params(model, params_to_prune(model))
    values = torch.cat([one.param.detach().flatten() for one in found])
    return float((values == 0).float().mean())


def main() -> None:
    """Find what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1])
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--test", type=int, default=4000)
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train = images(load(args.model), "train")
    test = images(load(args.model), f"test[:{args.test}]")
    file = RESULTS / "fine_tuning.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    settings = {key: getattr(args, key) for key in ("model", "sparsity", "steps", "rate", "test")}
    for seed in args.seeds:
        for method in args.methods:
            cell = {**settings, "seed": seed, "method": method}
            known = [row for row in rows if cell.items() <= row.items()]
            if known and not args.again:
                continue
            rows = [row for row in rows if row not in known]
            start = time.process_time()
            model = prune(args.model, method, args.sparsity, train, seed)
            before = accuracy(model, test)
            fine_tune(model, train, args.steps, args.rate, seed)
            after = accuracy(model, test)
            error = 100 * math.sqrt(after * (1 - after) / args.test)
            found = {"before": round(100 * before, 2), "after": round(100 * after, 2)}
            found |= {"error": round(error, 2), "zeros": round(zeros(model), 4)}
            rows.append({**cell, **found, "seconds": round(time.process_time() - start)})
            print(rows[-1], flush=True)
            write_result("fine_tuning", {"rows": rows})


if __name__ == "__main__":
    main()
