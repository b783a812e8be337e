"""What removing pruned filters, neurons and heads makes of a model's latency.

    python benchmarks/structured_speedup.py [--models resnet18 mobilenetv2_100 bert-minilm]
        [--sparsity 0.5] [--batch 8] [--length 128] [--rounds 20] [--threads 1] [--clock wall]

Each model is pruned in one shot, images by groups of dependent filters, the BERT of MiniLM's shape
(6 layers of 384) by neurons and heads, then run in turn as it was ("dense"), with the zeros left in
("masked") and with them removed ("shrunk"). Weights are random: latency does not depend on them.
Exit code 1 says that a shrunk model computes something else than the masked one, or is not faster
than the dense one.
"""

from __future__ import annotations

import argparse
import copy
import sys
from typing import Any

import timm
import torch
from torch import nn

from _timing import CLOCKS, medians, take_turns, write_result
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.shrink import shrink
from sparseml.pytorch.sparsification import StructuredPruningModifier
from sparseml.pytorch.units import dependency_groups, hidden_units
from sparseml.pytorch.units.probing import call_model
from sparseml.report import count_flops, measure_storage

BERT = "bert-minilm"
TOLERANCE = 1e-4


def main() -> None:
    """Measure every model and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet18", "mobilenetv2_100", BERT])
    parser.add_argument(
        "--sparsity", type=float, default=0.5, help="of the filters, neurons and heads"
    )
    parser.add_argument("--batch", type=int, default=8, help="images or texts at a time")
    parser.add_argument("--length", type=int, default=128, help="of texts, in tokens")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    results = {name: measure(name, options) for name in options.models}
    path = write_result("structured_speedup", {"options": vars(options), "models": results})
    print(f"written to {path}")
    good = [found["speedup"] > 1 and found["difference"] < TOLERANCE for found in results.values()]
    sys.exit(0 if all(good) else 1)


@torch.no_grad()
def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Latency, operations, parameters and bytes of one model in its three forms."""
    dense, inputs = build(name, options)
    masked = copy.deepcopy(dense)
    prune = prune_units if name == BERT else prune_filters
    prune(masked, inputs, options.sparsity)
    shrunk = copy.deepcopy(masked)
    done = shrink(shrunk, inputs)
    models = {"dense": dense, "masked": masked, "shrunk": shrunk}
    outputs = {form: call_model(model, inputs)[0] for form, model in models.items()}
    calls = {form: lambda model=model: call_model(model, inputs) for form, model in models.items()}
    taken = take_turns(calls, options.rounds, clock=options.clock)
    seconds = medians(taken)
    ratios = sorted(d / s for d, s in zip(taken["dense"], taken["shrunk"], strict=True))
    found = {
        "speedup": ratios[len(ratios) // 2],
        "speedup_quartiles": [ratios[len(ratios) // 4], ratios[3 * len(ratios) // 4]],
        "seconds": seconds,
        "gflops": {form: count_flops(m, inputs).dense / 1e9 for form, m in models.items()},
        "parameters": {
            form: sum(param.numel() for param in model.parameters())
            for form, model in models.items()
        },
        "megabytes": {
            form: measure_storage(model.state_dict()).dense / 1e6 for form, model in models.items()
        },
        "left": str(done),
        "difference": (outputs["masked"] - outputs["shrunk"]).abs().max().item(),
    }
    print(
        f"{name}: {found['speedup']:.2f} times as fast, "
        f"{seconds['dense'] * 1e3:.1f} -> {seconds['shrunk'] * 1e3:.1f} ms "
        f"(masked {seconds['masked'] * 1e3:.1f} ms), "
        f"{found['gflops']['dense']:.2f} -> {found['gflops']['shrunk']:.2f} GFLOP, "
        f"{found['megabytes']['dense']:.1f} -> {found['megabytes']['shrunk']:.1f} MB, "
        f"largest difference {found['difference']:.1e}"
    )
    return found


def build(name: str, options: argparse.Namespace) -> tuple[nn.Module, Any]:
    """A dense model with a batch for it."""
    if name != BERT:
        return timm.create_model(name).eval(), torch.randn(options.batch, 3, 224, 224)
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
    ids = torch.randint(config.vocab_size, (options.batch, options.length))
    return BertForSequenceClassification(config).eval(), {"input_ids": ids}


def prune_filters(model: nn.Module, images: Any, sparsity: float) -> None:
    """Zero a fraction of the filters."""
    found = dependency_groups(model, images[:1])
    pruner = StructuredPruningModifier(
        0.0, sparsity, 0.0, 1.0, 1.0, params=found.params, param_groups=found.param_groups
    )
    ScheduledModifierManager([pruner]).apply(model)


def prune_units(model: nn.Module, inputs: Any, sparsity: float) -> None:
    """Zero the last neurons and heads of every layer, of the classifier none."""
    for units in hidden_units(model, inputs).found:
        if not units.reader.startswith("classifier"):
            left = round(units.group.size * (1 - sparsity))
            for member in units.group.members:
                slices = model.get_parameter(member.param).movedim(member.dim, 0)
                slices[member.index >= left] = 0


if __name__ == "__main__":
    main()
