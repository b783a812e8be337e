"""What trained networks are worth when they have been shrunk to a goal and fine-tuned briefly.

    python benchmarks/structured_goals.py [--models small_vit resnet20] [--speedups 2.0 1.5]
        [--steps 300] [--batch 64] [--train 10000] [--test 2000]

In the first third of the steps units go by ``params: __STRUCTURED__`` until the network is as fast
as asked; then they are removed, and what is left trains on. At the end the time of both networks is
taken in turns again. A table of it is written beside the results, as each network is done. Exit
code 1 says that a network is not within a tenth of the speed that was asked for. ResNet-20 cannot
be twice as fast in this way: its shortcuts hand on all channels of a stage, so that only those
inside of blocks can go.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from _cifar import MODELS, accuracy, images, load, retune_norms, sampler
from _timing import RESULTS, write_result
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import StructuredPruningModifier
from sparseml.report import count_flops, measure_latency

SCORE = "taylor"
SETTLED = 0.9


def main() -> None:
    """Shrink every model and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["small_vit", "resnet20"])
    parser.add_argument("--speedups", type=float, nargs="+", default=[2.0, 1.5])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--train", type=int, default=10000)
    parser.add_argument("--test", type=int, default=2000)
    options = parser.parse_args()
    if len(options.speedups) != len(options.models):
        parser.error(f"--speedups must be one for each of {', '.join(options.models)}")
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = {}
    for name, speedup in zip(options.models, options.speedups, strict=True):
        results[name] = shrink(name, speedup, options)
        path = write_result("structured_goals", {"options": vars(options), "models": results})
        (RESULTS / "structured_goals.md").write_text(table(results))
    print(f"{table(results)}\nwritten to {path}")
    good = [one["measured"] >= SETTLED * one["asked"] for one in results.values()]
    sys.exit(0 if all(good) else 1)


def shrink(name: str, speedup: float, options: argparse.Namespace) -> dict[str, Any]:
    """Shrink and fine-tune one model."""
    torch.manual_seed(0)
    dense = load(name)
    test = images(dense, f"test[:{options.test}]")
    train = images(dense, f"train[:{options.train}]")
    model, start = copy.deepcopy(dense), time.monotonic()
    third, example = options.steps / 300, train[0][: options.batch]
    pruner = StructuredPruningModifier(
        0.0,
        {"speedup": speedup},
        0.0,
        third,
        third / 4,
        params="__STRUCTURED__",
        score=SCORE,
        remove=True,
    )
    manager = ScheduledModifierManager([pruner])
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    lent = {"grad_sampler": sampler(train, 16, seed=1), "example_inputs": example}
    optimizer = manager.modify(model, adam, steps_per_epoch=100, **lent)
    warm = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-3, options.steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(options.steps):
        batch = torch.randint(len(train[1]), (options.batch,), generator=generator)
        pictures = train[0][batch]
        flipped = torch.rand(len(batch), 1, 1, 1, generator=generator) < 0.5
        pictures = torch.where(flipped, pictures.flip(3), pictures)
        loss = cross_entropy(model(pictures), train[1][batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warm.step()
    manager.finalize(model)
    retune_norms(model, train[0][:1000])
    taken = measure_latency({"dense": dense, "shrunk": model}, example, 20)
    both = {"dense": dense, "shrunk": model}
    return {
        "top1": {form: accuracy(one, test) for form, one in both.items()},
        "parameters": {form: _size(one) for form, one in both.items()},
        "gflops": {form: count_flops(one, example).dense / 1e9 for form, one in both.items()},
        "ms": {form: times.median_ms for form, times in taken.items()},
        "asked": speedup,
        "after_removal": pruner.reached,
        "measured": taken["dense"].median_ms / taken["shrunk"].median_ms,
        "seconds": time.monotonic() - start,
    }


def _size(model: nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as a table of Markdown."""
    rows = ["| model | top-1 | parameters | ms | asked | measured |", "|---|---|---|---|---|---|"]
    for name, one in results.items():
        top1, size, ms = one["top1"], one["parameters"], one["ms"]
        rows.append(
            f"| {name} | {top1['dense']:.2%} -> {top1['shrunk']:.2%} | {size['dense']:,} -> "
            f"{size['shrunk']:,} | {ms['dense']:.1f} -> {ms['shrunk']:.1f} | {one['asked']:.2f}x | "
            f"{one['measured']:.2f}x |"
        )
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
