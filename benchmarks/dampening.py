"""What an automatic dampening is worth: a grid of fixed ones, the automatic one, and its price.

    python benchmarks/dampening.py --models resnet20 small_vit

Prunes small networks in one shot, without training, by CAP and OBS with every decade of
``relative_damp`` and with ``damp: auto``, from gradients of the outputs for single images. All
share the same gradients, so that they differ by the dampening alone. Accuracies are those of the
first test images, once with the statistics of batch norms as they were and once measured anew on
training images; of the two the higher counts.

What the choice costs is told for batches: the seconds of all trials but the first, against those of
sampling 512 gradients of batches of 16 (timed on a sixteenth of them) and one elimination. Seconds
are those of one thread, whatever else the machine does.

What is found goes to ``results/dampening.json``, cell by cell; cells that are there are not found
again, so that the work can be done in parts (``--methods``, ``--decades``).
"""

from __future__ import annotations

import argparse
import json
import math
import time
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
HELD_BACK = 500  # training images that measure batch norms, and no gradient
BATCH, BATCHES = 16, 512  # of the run that the price is told for
Data = tuple[torch.Tensor, torch.Tensor]


class Network:
    """A network with its images, and what has been found of it.

    :param content: of the results, added to
    """

    def __init__(self, name: str, args: argparse.Namespace, content: dict[str, Any]) -> None:
        self.name, self.args, self.content = name, args, content
        self.model, self.train = load(name), images(load(name), "train[:6000]")
        self.test = images(self.model, f"test[:{args.test}]")
        self.data: Data = (self.train[0][:-HELD_BACK], self.train[1][:-HELD_BACK])
        if "dense" not in content:
            dense = accuracy(self.model, self.test)
            error = math.sqrt(dense * (1 - dense) / args.test)
            content |= {"dense": round(100 * dense, 2), "error": round(100 * error, 2)}
            content |= {"test_images": args.test, "gradients": args.grads, "block": args.block}

    def modifier(self, method: str, **more: Any) -> Any:
        """A pruner as the recipes have it."""
        given = {"params": params_to_prune(self.model), "num_grads": self.args.grads}
        given |= {"fisher_block_size": self.args.block, "start_epoch": 0.0, "end_epoch": 1.0}
        sparsity = self.args.sparsity
        goal = {"init_sparsity": sparsity, "final_sparsity": sparsity, "update_frequency": 1.0}
        how = {"global_sparsity": True, "fisher_samples": "sample", "gradients_of": "outputs"}
        return METHODS[method](**{**given, **goal, **how, **more})

    def grid(self, method: str, decades: list[int]) -> None:
        """Every decade that is missing, from one Fisher matrix."""
        cells = self.content.setdefault(method, {}).setdefault("grid", {})
        missing = [decade for decade in decades if f"1e{decade}" not in cells]
        modifier, sums = self.modifier(method), []
        if missing:
            modifier.initialize(self.model, grad_sampler=sampler(self.data, 64))
        for decade in missing:
            start = time.process_time()
            problem = modifier.problem(self.model)
            if not sums:  # as the automatic choice does, so that the same gradients follow
                problem.sampler.keep_out(self.model, self.args.grads)
            (found,) = modifier.method.fixed(10.0**decade, sums).decide(
                problem, [self.args.sparsity]
            )
            seconds = time.process_time() - start
            cells[f"1e{decade}"] = {**self.measured(found), "seconds": round(seconds, 2)}
            print(self.name, method, decade, cells[f"1e{decade}"], flush=True)

    def automatic(self, method: str) -> None:
        """The automatic choice, and its price."""
        if "auto" in self.content.setdefault(method, {}):
            return
        start = time.process_time()
        given = sampler(self.data, 64)
        drawn = self.modifier(method, damp=1e-7).outcome(self.model, grad_sampler=given)
        fixed = time.process_time() - start
        del drawn
        start = time.process_time()
        modifier = self.modifier(method, damp="auto")
        outcome = modifier.outcome(self.model, grad_sampler=sampler(self.data, 64))
        extra = time.process_time() - start - fixed
        found = {**self.measured(outcome), "seconds_more": round(extra, 2)}
        found["price"] = round(extra / (self.seconds_of_sampling() + fixed), 3)
        self.content[method]["auto"] = {**found, "note": outcome.notes[0]}
        print(self.name, method, self.content[method]["auto"], flush=True)

    def seconds_of_sampling(self) -> float:
        """Of all gradients of batches, by a sixteenth of them."""
        if "seconds_of_sampling" not in self.content:
            start = time.process_time()
            for inputs, labels in zip(
                *(part[: BATCH * BATCHES // 16].split(BATCH) for part in self.data), strict=True
            ):
                nn.functional.cross_entropy(self.model(inputs), labels).backward()
            self.model.zero_grad()
            self.content["seconds_of_sampling"] = round(16 * (time.process_time() - start), 1)
        return float(self.content["seconds_of_sampling"])

    def measured(self, outcome: Outcome) -> dict[str, float]:
        """Accuracy with statistics as they were, and measured anew."""
        model = load(self.name)
        outcome.write(model)
        found = {"kept": accuracy(model, self.test)}
        if any(isinstance(part, nn.BatchNorm2d) for part in model.modules()):
            retune_norms(model, self.train[0][-HELD_BACK:])
            found["anew"] = accuracy(model, self.test)
        return {key: round(100 * value, 2) for key, value in found.items()}

    def compare(self, method: str) -> None:
        """How far the automatic choice is behind the best of a whole grid."""
        found = self.content[method]
        if "auto" in found and len(found["grid"]) == HIGHEST - LOWEST + 1:
            best = max(_right(cell) for cell in found["grid"].values())
            found["behind_best"] = round(best - _right(found["auto"]), 2)
            print(self.name, method, "behind the best by", found["behind_best"], flush=True)


def _right(cell: dict[str, Any]) -> float:
    return max(cell["kept"], cell.get("anew", 0.0))


def main() -> None:
    """Find what is missing of what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--models", nargs="*", default=["resnet20", "small_vit", "resnet56"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--decades", type=int, nargs="*", default=[*range(LOWEST, HIGHEST + 1)])
    parser.add_argument("--no-auto", action="store_true")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--grads", type=int, default=512)
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--test", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "dampening.json"
    networks = json.loads(file.read_text())["networks"] if file.exists() else {}
    for name in args.models:
        content = networks.setdefault(f"{name} {args.sparsity:g}", {})
        network = Network(name, args, content)
        for method in args.methods:
            network.grid(method, args.decades)
            if not args.no_auto:
                network.automatic(method)
            network.compare(method)
            write_result("dampening", {"networks": networks})


if __name__ == "__main__":
    main()
