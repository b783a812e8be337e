"""What removing pruned filters makes of a model's latency.

    python benchmarks/structured_speedup.py [--models resnet18 mobilenetv2_100] [--sparsity 0.5]
        [--batch 8] [--rounds 20] [--threads 1] [--clock wall]

Each model is pruned in one shot by groups of dependent filters, then run in turn as it was
("dense"), with the zeros left in ("masked") and with them removed ("shrunk"). Weights are random:
latency does not depend on them. Exit code 1 says that a shrunk model computes something else than
the masked one, or is not faster than the dense one.
"""

from __future__ import annotations

import argparse
import copy
import sys
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from _timing import CLOCKS, medians, take_turns, write_result
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import LayerThinningModifier, StructuredPruningModifier
from sparseml.pytorch.units import dependency_groups

TOLERANCE = 1e-4


def main() -> None:
    """Measure every model and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenetv2_100"])
    parser.add_argument("--sparsity", type=float, default=0.5, help="of the filters")
    parser.add_argument("--batch", type=int, default=8, help="images at a time")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    images = torch.randn(options.batch, 3, 224, 224)
    results = {name: measure(name, images, options) for name in options.models}
    path = write_result("structured_speedup", {"options": vars(options), "models": results})
    print(f"written to {path}")
    good = [found["speedup"] > 1 and found["difference"] < TOLERANCE for found in results.values()]
    sys.exit(0 if all(good) else 1)


@torch.no_grad()
def measure(name: str, images: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Latency, operations and parameters of one model in its three forms."""
    dense = timm.create_model(name).eval()
    models = {"dense": dense, **pruned(dense, images, options.sparsity)}
    outputs = {form: model(images) for form, model in models.items()}
    calls = {form: lambda model=model: model(images) for form, model in models.items()}
    taken = take_turns(calls, options.rounds, clock=options.clock)
    seconds = medians(taken)
    ratios = sorted(d / s for d, s in zip(taken["dense"], taken["shrunk"], strict=True))
    found = {
        "speedup": ratios[len(ratios) // 2],
        "speedup_quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
        "seconds": seconds,
        "gflops": {form: flops(model, images) / 1e9 for form, model in models.items()},
        "parameters": {
            form: sum(param.numel() for param in model.parameters())
            for form, model in models.items()
        },
        "difference": (outputs["masked"] - outputs["shrunk"]).abs().max().item(),
    }
    print(
        f"{name}: {found['speedup']:.2f} times as fast, "
        f"{seconds['dense'] * 1e3:.1f} -> {seconds['shrunk'] * 1e3:.1f} ms "
        f"(masked {seconds['masked'] * 1e3:.1f} ms), "
        f"{found['gflops']['dense']:.2f} -> {found['gflops']['shrunk']:.2f} GFLOP, "
        f"largest difference {found['difference']:.1e}"
    )
    return found


def pruned(dense: nn.Module, images: Tensor, sparsity: float) -> dict[str, nn.Module]:
    """The model with a fraction of its filters zero, and with these removed."""
    masked = copy.deepcopy(dense)
    found = dependency_groups(masked, images[:1])
    pruner = StructuredPruningModifier(
        0.0, sparsity, 0.0, 1.0, 1.0, params=found.params, param_groups=found.param_groups
    )
    ScheduledModifierManager([pruner]).apply(masked)
    shrunk = copy.deepcopy(masked)
    thinner = LayerThinningModifier(found.param_group_dependency_map)
    ScheduledModifierManager([thinner]).apply(shrunk)
    return {"masked": masked, "shrunk": shrunk}


def flops(model: nn.Module, images: Tensor) -> int:
    """Floating point operations of one forward pass."""
    with FlopCounterMode(display=False) as counter:
        model(images)
    return int(counter.get_total_flops())


if __name__ == "__main__":
    main()
