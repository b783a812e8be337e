"""One process of those that ``test_every_rank.py`` starts.

``ranks_worker.py FOLDER`` trains with every pruning modifier, and with sharded parameters, and
saves what came out. ``ranks_worker.py FOLDER killed|stuck`` trains until rank 1 dies or stops.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import sparseml.pytorch.sparsification as sparsification
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import BasePruningModifier
from sparseml.pytorch.utils.tensors.sharded import full_value

TABLE = Path(__file__).parents[1] / "test_every_modifier.py"
TIMEOUT = timedelta(seconds=8)
STEPS, PER_EPOCH = 16, 4


def load_table():
    spec = importlib.util.spec_from_file_location("every_modifier", TABLE)
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    return table


def pruning_names(table):
    return [n for n in table.NAMES if issubclass(getattr(sparsification, n), BasePruningModifier)]


def tensors(state):
    if isinstance(state, torch.Tensor):
        return [state]
    return [tensor for value in state.values() for tensor in tensors(value)]


def digest(masks):
    whole = hashlib.sha256()
    for mask in masks:
        whole.update(mask.numpy().tobytes())
    return whole.hexdigest()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def train(model, modifier, sampler, rank, world, before_step=lambda step: None):
    """Train; yields the modifier's masks after every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    manager = ScheduledModifierManager([modifier])
    stepper = manager.modify(model, optimizer, steps_per_epoch=PER_EPOCH, grad_sampler=sampler)
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        share = torch.randn(8, 4, generator=generator).chunk(world)[rank]
        optimizer.zero_grad()
        (model(share) - 1).pow(2).mean().backward()
        before_step(step)
        stepper.step()
        yield tensors(modifier.state_dict())


def with_every_modifier(rank, world):
    table = load_table()
    sampler = dict(table.SAMPLER)
    # gradients are sampled on other data on every rank
    sampler["data_loader_builder"] = lambda seed=0: table.samples(seed + rank)
    found = {}
    for name in pruning_names(table):
        model = DistributedDataParallel(net())
        masks = list(train(model, table.make(name), sampler, rank, world))
        weights = [param.detach() for param in model.parameters()]
        found[name] = {
            "masks": [digest(step) for step in masks],
            "pruned": sum(int((mask == 0).sum()) for mask in masks[-1]),
            "weights": digest(weights),
        }
    return found


def sharded(modifier, rank, world):
    """Masks and weights of a run whose parameters are sharded (if there are several ranks)."""
    model = net()
    if world > 1:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (world,))
        for part in (model[0], model[2], model):
            fully_shard(part, mesh=mesh)
    sampler = {"data_loader_builder": lambda: SAMPLES, "loss_fn": nn.functional.mse_loss}
    steps = [
        [mask.clone() for mask in masks] for masks in train(model, modifier, sampler, rank, world)
    ]
    return {"masks": steps, "weights": [full_value(param) for param in model.parameters()]}


SAMPLES = [
    ([torch.linspace(-1, seed, 12).view(3, 4)], {}, torch.ones(3, 2)) for seed in range(1, 5)
]
SHARDED = {
    "global": lambda: sparsification.GlobalMagnitudePruningModifier(
        0.1, 0.7, 1.0, 3.0, 0.5, ["re:.*weight"]
    ),
    "from_param": lambda: sparsification.MagnitudePruningModifier(
        "__FROM_PARAM__", 0.7, 1.0, 3.0, 0.5, ["re:.*weight"], mask_type="2x1"
    ),
    "movement": lambda: sparsification.MovementPruningModifier(
        0.1, 0.7, 1.0, 3.0, 0.5, ["re:.*weight"]
    ),
    "snip_momentum": lambda: sparsification.SnipMomentumPruningModifier(
        0.1, 0.7, 1.0, 3.0, 0.5, ["re:.*weight"], mask_type="2x1", min_sparsity_per_param=0.5
    ),
    "snip_momentum_max": lambda: sparsification.SnipMomentumPruningModifier(
        0.1, 0.7, 1.0, 3.0, 0.5, ["re:.*weight"], mask_type="2x1", score_reduce="max"
    ),
    "snip_momentum_parts": lambda: sparsification.SnipMomentumPruningModifier(
        0.1, 0.7, 1.0, 3.0, 1.0, ["re:.*weight"], progressive_steps=2
    ),
    "lasso": lambda: sparsification.SnipMomentumPruningModifier(
        0.1,
        0.5,
        1.0,
        3.0,
        0.5,
        ["re:.*weight"],
        mask_type="1xchannel",
        score_type="block_mask",
        reg_type="group_lasso",
        reg_coeff=1e-3,
    ),
    "retrain_free": lambda: sparsification.SnipMomentumPruningModifier(
        0.1,
        0.5,
        1.0,
        3.0,
        0.5,
        ["re:.*weight"],
        mask_type="channelx1",
        score_type="retrain_free",
        num_grads=4,
    ),
    "acdc": lambda: sparsification.ACDCPruningModifier(0.7, 0, 4, 1, ["re:.*weight"]),
    "top_kast": lambda: sparsification.TopKASTPruningModifier(
        0.7, 0.4, 1.0, 3.0, 0.5, ["re:.*weight"]
    ),
    "rigl": lambda: sparsification.RigLPruningModifier(
        0.7, 1.0, 3.0, 0.5, ["re:.*weight"], num_grads=4
    ),
}


def until_one_fails(how, rank, world):
    def before_step(step):
        if rank == 1 and step == 8:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    model = DistributedDataParallel(net())
    list(train(model, SHARDED["global"](), None, rank, world, before_step))


def main(folder, how=None):
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", timeout=TIMEOUT if how else None)
    if how:
        until_one_fails(how, rank, world)
        return
    found = {
        "every": with_every_modifier(rank, world),
        "sharded": {kind: sharded(make(), rank, world) for kind, make in SHARDED.items()},
    }
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
