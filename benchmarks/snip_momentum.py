"""What pruning by running saliency takes: an update of the masks, and its share of a training step.

    python benchmarks/snip_momentum.py [--threads 2] [--rounds 3] [--clock cpu]

The masks of a BERT-base with random weights (85 million, all Linear layers of its encoder) are
updated at 90 % in blocks of 4x1 with a floor of 0.5 and a cap of 0.98, all layers ranked together;
in the same run also by a plain formulation of the same rules, which looks at all scores and counts
all masks anew for each layer, as the original does. Then the scores of a BERT-mini are kept up
beside its training steps. The update may take 2 seconds, the upkeep 5% of a step; exit code 1 says
that one of them took more.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from functools import partial

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from _timing import CLOCKS, medians, take_turns, write_result
from sparseml.pytorch.sparsification.pruning import SnipMomentumPruningModifier

SPARSITY, FLOOR, CAP = 0.9, 0.5, 0.98
SECONDS, SHARE = 2.0, 0.05
FIELDS = {
    "params": ["re:bert.encoder.*(query|key|value|dense).weight"],
    "init_sparsity": 0.0,
    "final_sparsity": SPARSITY,
    "start_epoch": 0.0,
    "end_epoch": 9.0,
    "update_frequency": 1.0,
    "mask_type": "4x1",
    "min_sparsity_per_param": FLOOR,
    "max_sparsity_per_param": CAP,
}


def main() -> None:
    """Time both, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="updates; the plain one is done once")
    parser.add_argument("--steps", type=int, default=20, help="training steps of the BERT-mini")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    update, upkeep = update_times(options), upkeep_times(options)
    seconds, share = update["seconds"]["update"], upkeep["share_of_step"]
    print(f"update of {update['weights']:,} weights: {seconds:.2f} s")
    print(
        f"  in the plain formulation: {update['seconds']['plain']:.2f} s, x{update['speedup']:.1f}"
    )
    print(f"  largest difference of a layer's sparsity: {update['largest_difference']:.5f}")
    print(f"upkeep of {upkeep['weights']:,} scores: {share:.2%} of a training step")
    result = {"settings": vars(options), "update": update, "upkeep": upkeep}
    print(f"written to {write_result('snip_momentum', result)}")
    if seconds > SECONDS or share > SHARE:
        sys.exit(f"more than {SECONDS:g} s for an update, or {SHARE:.0%} of a step for the upkeep")


def bert(layers: int, hidden: int) -> nn.Module:
    """Return a BERT with random weights."""
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_attention_heads=hidden // 64,
    )
    return BertForSequenceClassification(config)


def update_times(options: argparse.Namespace) -> dict[str, object]:
    """Time an update of all masks of a BERT-base, and a plain one."""
    model = bert(12, 768)
    modifier = SnipMomentumPruningModifier(**FIELDS)
    modifier.initialize(model)
    params = modifier.masks.params
    for number, param in enumerate(params):  # layers of different importance
        param.grad = torch.randn_like(param) * (1 + number % 7) / 4
    modifier.method.observe(modifier.masks)
    scores = modifier.method.scores(modifier.problem(model))
    found: dict[str, list[int]] = {}

    def update() -> None:
        modifier.apply_target(model, [SPARSITY] * len(params))
        found["update"] = [int((~mask).sum()) for mask in modifier.masks.masks]

    def plain() -> None:
        masks = plain_masks(scores, SPARSITY, FLOOR, CAP)
        found["plain"] = [int((~mask).sum()) for mask in masks]

    taken = take_turns({"update": update}, options.rounds, warmup=1, clock=options.clock)
    taken |= take_turns({"plain": plain}, 1, warmup=0, clock=options.clock)
    seconds, sizes = medians(taken), [param.numel() for param in params]
    off = [abs(a - b) / n for a, b, n in zip(found["update"], found["plain"], sizes, strict=True)]
    return {
        "weights": sum(sizes),
        "pruned": sum(found["update"]),
        "pruned_plain": sum(found["plain"]),
        "largest_difference": max(off),
        "seconds": seconds,
        "speedup": seconds["plain"] / seconds["update"],
        "all": taken,
    }


def plain_masks(scores: list[Tensor], sparsity: float, floor: float, cap: float) -> list[Tensor]:
    """Return the masks by the rules as they are written down, without a shortcut.

    In passes over the layers that are not settled yet: of all their blocks the lowest go. A layer
    above the cap is settled at it. A layer that would take what others need to get to the floor
    leaves that much to them, and is settled, too.
    """
    blocks = [each.reshape(each.shape[0] // 4, 4, -1).mean(1) for each in scores]
    sizes, total = [each.numel() for each in blocks], sum(each.numel() for each in blocks)
    masks = [torch.ones_like(each, dtype=torch.bool) for each in blocks]
    active, left = list(range(len(blocks))), math.floor(total * sparsity)
    while active and left >= 1:
        threshold = torch.cat([blocks[at].flatten() for at in active]).kthvalue(left).values
        settled = []
        for at in active:
            goes = int((blocks[at] <= threshold).sum())
            share, adjusted = goes / sizes[at], False
            if share > cap:
                share, goes, adjusted = cap, math.floor(cap * sizes[at]), True
            if share >= floor:
                zeros = [int((~mask).sum()) for mask in masks]
                zeros[at] = goes
                shares = [zero / size for zero, size in zip(zeros, sizes, strict=True)]
                if max(shares) > sparsity:
                    below = [place for place, each in enumerate(shares) if each < floor]
                    gap = math.floor(floor * sum(sizes[place] for place in below))
                    gap -= sum(zeros[place] for place in below)
                    room = math.floor(sparsity * total) - sum(zeros)
                    if room < gap:
                        share, adjusted = (goes - (gap - room)) / sizes[at], True
            masks[at] = blocks[at] > threshold
            if adjusted:
                count = math.floor(share * sizes[at])
                masks[at] = torch.ones_like(masks[at])
                masks[at].view(-1)[blocks[at].flatten().argsort()[:count]] = False
                settled.append(at)
                left -= count
        if not settled:
            break
        active = [at for at in active if at not in settled]
    return [mask.repeat_interleave(4, dim=0) for mask in masks]


def upkeep_times(options: argparse.Namespace) -> dict[str, object]:
    """Time the training steps of a BERT-mini and, beside them, what keeping up its scores takes."""
    model = bert(4, 256)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    modifier = SnipMomentumPruningModifier(**FIELDS)
    modifier.initialize(model)
    tokens, labels = torch.randint(30000, (16, 128)), torch.randint(2, (16,))
    taken = take_turns(
        {
            "step": partial(step, model, optimizer, tokens, labels),
            "upkeep": partial(modifier.method.observe, modifier.masks),
        },
        options.steps,
        clock=options.clock,
    )
    seconds = medians(taken)
    return {
        "weights": sum(param.numel() for param in modifier.masks.params),
        "batch": list(tokens.shape),
        "seconds": seconds,
        "share_of_step": seconds["upkeep"] / seconds["step"],
        "all": taken,
    }


def step(
    model: nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, labels: Tensor
) -> None:
    """Take one training step; the gradients stay."""
    optimizer.zero_grad()
    model(input_ids=tokens, labels=labels).loss.backward()
    optimizer.step()


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"in {time.perf_counter() - started:.0f} s")
