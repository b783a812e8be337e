"""Grow-and-prune on real data, beside what is pruned once and trained as long."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import GaPPruningModifier

EPOCHS, BATCH, MARGIN = 12, 64, 0.02


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, inputs):
        return inputs + self.down(torch.relu(self.up(self.norm(inputs))))


def accuracy(seed, **fields):
    """Train on scikit-learn's digits; the part of 597 unseen ones that is told aright."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    inputs = torch.tensor(digits.data / 16 - 0.3, dtype=torch.float32)
    targets = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(inputs), generator=generator)
    seen, unseen = places[:1200], places[1200:]
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(64, 32), *(Block(32) for _ in range(3)), nn.LayerNorm(32), nn.Linear(32, 10)
    )
    modifier = GaPPruningModifier(
        ["0.weight", r"re:\d\.(up|down)\.weight"], 0.9, update_frequency=2.0, **fields
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    manager, steps = ScheduledModifierManager([modifier]), -(-len(seen) // BATCH)
    stepper = manager.modify(model, optimizer, steps_per_epoch=steps)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * steps)
    for _ in range(EPOCHS):
        for batch in seen[torch.randperm(len(seen), generator=generator)].split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            stepper.step()
            rates.step()
    manager.finalize(model)
    zeros = sum(int((one.param == 0).sum()) for one in modifier.selects(model))
    assert zeros == sum(round(0.9 * one.param.numel()) for one in modifier.selects(model))
    with torch.no_grad():
        return (model(inputs[unseen]).argmax(1) == targets[unseen]).float().mean().item()


@pytest.mark.slow
def test_it_is_not_worse_than_pruning_once():
    grown = [accuracy(seed, num_steps=3) for seed in range(3)]
    once = [accuracy(seed, num_steps=0) for seed in range(3)]
    assert sum(grown) / 3 > max(0.9, sum(once) / 3 - MARGIN), (grown, once)
