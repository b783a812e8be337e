"""Two processes (gloo) prune by sampled gradients as one does on the same batches."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")

WORKER = """
import os, sys, torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from sparseml.pytorch.sparsification.pruning import (CAPruningModifier, FastCAPruningModifier,
    GWProdPruningModifier, MFACPruningModifier, OBSPruningModifier, SnipMomentumPruningModifier)
from sparseml.pytorch.utils.tensors.sharded import full_value

world, rank, path = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]), sys.argv[1]
if world > 1:
    dist.init_process_group("gloo")
fields = dict(params=["re:.*weight"], init_sparsity=0.5, final_sparsity=0.5, start_epoch=0.0,
              end_epoch=2.0, update_frequency=1.0, num_grads=11)
exact = dict(fisher_block_size=12, damp=1e-3, fisher_dtype="float64")
generator = torch.Generator().manual_seed(1)
batches = [([torch.randn(3, 4, 4, 4, generator=generator).double()], {},
            torch.randint(0, 4, (3,), generator=generator)) for _ in range(11)]

def sharded(net):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh("cpu", (world,))
    for part in (net[0], net[3], net):
        fully_shard(part, mesh=mesh)
    return net

def joined(first, second):
    return [torch.cat([first[0][0], second[0][0]])], {}, torch.cat([first[2], second[2]])

def prune(cls, broken=False, count=11, shard=False, **changes):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)).double()
    model = net
    if world > 1:
        model = sharded(net) if shard else DistributedDataParallel(net)
    own = batches[:count][rank::world]
    if shard and world == 1:  # a gradient is that of the batches of both ranks together
        own = [joined(*batches[i : i + 2]) for i in range(0, count, 2)]
    loss = nn.functional.cross_entropy
    if broken and rank == world - 1:
        loss = lambda output, target: output.sum() * float("nan")
    sampler = {"data_loader_builder": lambda: own, "loss_fn": loss, "progress_bar": False}
    modifier = cls(**{**fields, **changes})
    modifier.initialize(model, grad_sampler=sampler)
    for epoch, sparsity in ((0.0, 0.5), (1.0, 0.75)):
        modifier.check_mask_update(model, epoch, 4, recomputation_sparsity=sparsity)
    states = net.state_dict(), dict(modifier.state_dict())
    return [{key: full_value(value) for key, value in state.items()} for state in states]

results = [
    prune(CAPruningModifier, **exact),
    prune(CAPruningModifier, **exact, global_sparsity=False, mask_type="block4"),
    prune(CAPruningModifier, **exact, fisher_memory="4kB", fisher_samples="sample",
          num_grads=30, count=10),
    prune(OBSPruningModifier, **exact),
    prune(OBSPruningModifier, fisher_dtype="float64", damp=1e-3, fisher_block_size=1000),
    prune(FastCAPruningModifier, fisher_block_size=12, damp=1e-2, fisher_dtype="float64"),
    prune(FastCAPruningModifier, damp=1e-2, fisher_dtype="float64", fisher="both", order="loss",
          ranking="elimination", weight_update="joint", global_sparsity=True),
    prune(CAPruningModifier, **exact, input_prior=1.0),
    prune(MFACPruningModifier, fisher_block_size=16),
    prune(MFACPruningModifier, fisher_block_size=None, global_sparsity=True),
    prune(GWProdPruningModifier, global_sparsity=True),
    prune(SnipMomentumPruningModifier, score_type="retrain_free", mask_type="channelx1",
          global_sparsity=False),
    prune(CAPruningModifier, **exact, shard=True, count=10, num_grads=5),
    prune(FastCAPruningModifier, fisher_block_size=12, damp=1e-2, shard=True, count=10,
          num_grads=5),
    prune(FastCAPruningModifier, damp=1e-2, fisher="inputs", fisher_dtype="float64", shard=True,
          count=10, num_grads=10),
    prune(MFACPruningModifier, fisher_block_size=16, shard=True, count=10, num_grads=5),
    prune(GWProdPruningModifier, global_sparsity=True, shard=True, count=10, num_grads=5),
]
try:
    prune(CAPruningModifier, broken=True, **exact)
    results.append("nothing raised")
except RuntimeError as error:
    results.append(str(error))
for of in ("loss", "outputs"):
    results.insert(-1, prune(CAPruningModifier, **{**exact, "damp": "auto", "gradients_of": of}))
torch.save(results, f"{path}/{world}-{rank}.pt")
if world > 1:
    dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def found(start_ranks, tmp_path_factory, warmly):
    folder = tmp_path_factory.mktemp("ranks")
    with warmly():  # that no order of a set matters is for test_every_rank.py
        single, pair = start_ranks(WORKER, 1, folder), start_ranks(WORKER, 2, folder)
    return [*single(), *pair()]


CASES = ["cap", "cap_block4", "cap_groups_sample", "obs", "obs_one_block", "fast_cap"]
CASES += [
    "fast_cap_both",
    "cap_prior",
    "mfac",
    "mfac_one_block",
    "gw",
    "retrain_free",
    "cap_sharded",
    "fast_cap_sharded",
    "fast_cap_inputs_sharded",
    "mfac_sharded",
    "gw_sharded",
]


@pytest.mark.parametrize("case", range(len(CASES)), ids=CASES)
def test_two_ranks_equal_one(found, case):
    alone, first, second = (results[case] for results in found)
    for own, theirs in zip(first, second, strict=True):
        assert own.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in own.items())
    for key, value in alone[0].items():
        torch.testing.assert_close(first[0][key], value, rtol=1e-5, atol=1e-8)
    for key, mask in alone[1].items():
        assert torch.equal(first[1][key], mask)
    zeros = sum(int((value == 0).sum()) for key, value in alone[0].items() if "weight" in key)
    assert zeros == (8 * 36 + 4 * 32) * 3 // 4


@pytest.mark.parametrize("place", [-3, -2], ids=["loss", "outputs"])
def test_ranks_choose_the_same_dampening(found, place):
    first, second = (results[place] for results in found[1:])
    for own, theirs in zip(first, second, strict=True):
        assert all(torch.equal(value, theirs[key]) for key, value in own.items())
    zeros = sum(int((value == 0).sum()) for key, value in first[0].items() if "weight" in key)
    assert zeros == (8 * 36 + 4 * 32) * 3 // 4


def test_all_ranks_fail_where_one_has_to(found):
    assert all("not finite" in results[-1] for results in found[:1] + found[2:])
    assert "sampling failed on another rank" in found[1][-1]
