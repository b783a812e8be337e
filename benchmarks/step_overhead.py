"""What masking adds to a training step.

    python benchmarks/step_overhead.py [--batch 16] [--rounds 40] [--threads 1] [--clock cpu]

A DeiT-Tiny with random weights takes training steps in three ways, in turn: the bare loop; the same
loop with the manager of a recipe that masks every Linear weight; and the bare loop with hooks that
mask the weights before every forward pass and the gradients when they arrive, the scheme of
SparseML 1.x. The manager may add 3% to the bare loop; exit code 1 says that it added more.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from functools import partial

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from _timing import CLOCKS, medians, ratios, take_turns, write_result
from sparseml.pytorch.functional.masks import apply_masks
from sparseml.pytorch.optim import ScheduledModifierManager

SPARSITY = 0.9
LIMIT = 1.03
RECIPE = f"""
modifiers:
  - !MagnitudePruningModifier
    params: ['re:.*(qkv|attn.proj|fc1|fc2|head).weight']
    init_sparsity: {SPARSITY}
    final_sparsity: {SPARSITY}
    start_epoch: 0.0
    end_epoch: 1.0
    update_frequency: 1000.0
"""


def main() -> None:
    """Time the three ways and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=16, help="images per step")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224")
    images, labels = torch.randn(options.batch, 3, 224, 224), torch.arange(options.batch)
    builders = {"bare": bare_step, "manager": manager_step, "hooks": hooks_step}
    steps = {
        name: partial(build(copy.deepcopy(model)), images, labels)
        for name, build in builders.items()
    }
    taken = take_turns(steps, options.rounds, clock=options.clock)
    compared, seconds = ratios(taken, "bare"), medians(taken)
    for name, (low, middle, high) in compared.items():
        print(f"{name:8} {1000 * seconds[name]:8.1f} ms  x{middle:.4f} [{low:.4f}, {high:.4f}]")
    alone = masking_seconds(copy.deepcopy(model), images[:2], labels[:2], options.clock)
    share = alone / seconds["bare"]
    print(f"masking by itself takes {1000 * alone:.1f} ms, {share:.2%} of a bare step")
    settings = {**vars(options), "masked_layers": _linears(model)}
    result = {
        "settings": settings,
        "seconds": seconds,
        "ratio_to_bare": compared,
        "masking_seconds": alone,
        "all": taken,
    }
    print(f"written to {write_result('step_overhead', result)}")
    if compared["manager"][1] > LIMIT:
        sys.exit(f"the manager added more than {LIMIT - 1:.0%}")


Step = Callable[[Tensor, Tensor], object]


def _linears(model: nn.Module) -> int:
    return sum(isinstance(layer, nn.Linear) for layer in model.modules())


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor):
    loss = cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def bare_step(model: nn.Module) -> Step:
    """A training step without masks."""
    return partial(_step, model, torch.optim.AdamW(model.parameters(), lr=1e-4))


def manager_step(model: nn.Module) -> partial[None]:
    """A training step with a manager that masks all Linear weights."""
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4)
    manager = ScheduledModifierManager.from_yaml(RECIPE)
    optimizer = manager.modify(model, adam, steps_per_epoch=1000)
    return partial(_step, model, optimizer)


def masking_seconds(model: nn.Module, images: Tensor, labels: Tensor, clock: str) -> float:
    """What the manager does in a step, without the step, which is too long to time so little by."""
    step = manager_step(model)
    step(images, labels)
    optimizer = step.args[1]
    masks = optimizer.wrapped_manager.modifiers[0].masks

    def mask() -> None:
        for param, kept in zip(masks.params, masks.masks, strict=True):
            apply_masks([param.grad], [kept])  # in a step: by hooks, when the gradients arrive
        optimizer.emulated_step()

    return medians(take_turns({"masking": mask}, rounds=20, clock=clock))["masking"]


def hooks_step(model: nn.Module) -> Step:
    """A training step in which hooks mask all Linear weights and their gradients."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            threshold = (
                layer.weight.detach()
                .abs()
                .flatten()
                .kthvalue(round(SPARSITY * layer.weight.numel()))[0]
            )
            mask = (layer.weight.detach().abs() > threshold).to(layer.weight.dtype)
            layer.register_forward_pre_hook(partial(_mask_weight, mask))
            layer.weight.register_hook(partial(torch.mul, mask))
    return bare_step(model)


def _mask_weight(mask: Tensor, layer: nn.Linear, inputs: object) -> None:
    with torch.no_grad():
        layer.weight.mul_(mask)


if __name__ == "__main__":
    main()
