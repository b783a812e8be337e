"""Two processes (gloo) prune as one does."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from sparseml.pytorch.sparsification.pruning.masks.mask_set import broadcast_masks
from sparseml.pytorch.utils.distributed import is_distributed, sum_over_ranks

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")

WORKER = """
import os, sys, torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import (
    GlobalMagnitudePruningModifier, MovementPruningModifier, MovementPruningParamsScorer)
from sparseml.pytorch.sparsification.pruning.masks.mask_set import broadcast_masks
from sparseml.pytorch.utils.distributed import sum_over_ranks

world, rank, path = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]), sys.argv[1]
if world > 1:
    dist.init_process_group("gloo")

def train(cls):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).double()
    model = DistributedDataParallel(net) if world > 1 else net
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    modifier = cls(params=["re:.*weight"], init_sparsity=0.1, final_sparsity=0.7,
                   start_epoch=1.0, end_epoch=3.0, update_frequency=0.5)
    stepper = ScheduledModifierManager([modifier]).modify(model, optimizer, steps_per_epoch=2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(8):
        inputs = torch.randn(8, 8, generator=generator, dtype=torch.float64)
        share = inputs.chunk(world)[rank]
        optimizer.zero_grad()
        (model(share) - 1).pow(2).mean().backward()
        stepper.step()
    return [net.state_dict(), dict(modifier.state_dict())]

results = [train(GlobalMagnitudePruningModifier), train(MovementPruningModifier)]

# what ranks disagree on is settled by rank 0
torch.manual_seed(rank)
lone = nn.Linear(4, 4)
modifier = GlobalMagnitudePruningModifier(0.1, 0.5, 0.0, 1.0, 0.5, "__ALL_PRUNABLE__")
modifier.initialize(lone, epoch=float("inf"))
masks = broadcast_masks([torch.full((3, 3), float(rank)), torch.full((5,), 1 - rank).half()])
sums = sum_over_ranks([torch.full((2,), rank + 1.0)])
scorer = MovementPruningParamsScorer([lone.weight], dist_backend="gloo")
said = scorer._broadcast_list_from_main(["from", rank])
results += [modifier.state_dict()["weight.sparsity_mask"], masks, sums, said]
torch.save(results, f"{path}/{world}-{rank}.pt")
if world > 1:
    dist.destroy_process_group()
"""


@pytest.mark.usefixtures("warm")
def test_two_processes_equal_one(start_ranks, tmp_path):
    pair, single = start_ranks(WORKER, 2, tmp_path), start_ranks(WORKER, 1, tmp_path)
    (first, second), (alone,) = pair(), single()
    for method in range(2):
        (weights, masks), (other_weights, other_masks) = first[method], second[method]
        single_weights, single_masks = alone[method]
        assert list(masks) == ["0.weight.sparsity_mask", "2.weight.sparsity_mask"]
        for name, mask in masks.items():
            assert torch.equal(mask, other_masks[name])
            assert torch.equal(mask, single_masks[name])
            assert 0.1 < mask.mean() < 0.5
        for name, value in weights.items():
            assert torch.equal(value, other_weights[name])
            assert torch.allclose(value, single_weights[name], atol=1e-12)
    assert torch.equal(first[2], second[2])
    assert first[2].mean() == 0.5
    for masks in (first[3], second[3]):
        assert masks[0].max() == 0
        assert masks[1].tolist() == [1, 1, 1, 1, 1]
        assert masks[1].dtype == torch.float16
    assert first[4][0].tolist() == second[4][0].tolist() == [3.0, 3.0]
    assert first[5] == second[5] == ["from", 0]


def test_a_single_process_talks_to_nobody():
    masks = [torch.ones(3)]
    assert not is_distributed()
    assert broadcast_masks(masks)[0] is masks[0]
    assert sum_over_ranks(masks)[0] is masks[0]
    assert broadcast_masks([]) == []
