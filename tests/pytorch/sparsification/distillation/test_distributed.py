"""Two processes (gloo) learn from a teacher as one does, and keep the same projections."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

pytestmark = [
    pytest.mark.skipif(not dist.is_available(), reason="torch without distributed"),
    pytest.mark.usefixtures("warm"),
]

WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import PerLayerDistillationModifier

folder, world, rank = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if world > 1:
    dist.init_process_group("gloo", f"file://{folder}/store", world_size=world, rank=rank)
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
teacher = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
torch.manual_seed(rank)
model = DistributedDataParallel(net) if world > 1 else net
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
modifier = PerLayerDistillationModifier(normalize=False)
stepper = ScheduledModifierManager([modifier]).modify(
    model, optimizer, steps_per_epoch=2, distillation_teacher=teacher)
generator = torch.Generator().manual_seed(1)
for step in range(5):
    optimizer.zero_grad()
    for accumulated in range(2):
        inputs = torch.randn(8, 4, generator=generator, dtype=torch.float64).chunk(world)[rank]
        outputs = model(inputs)
        modifier.loss_update(
            outputs.square().mean(), model, optimizer, step / 2, 2,
            student_outputs=outputs, student_inputs=inputs).backward()
    stepper.step()
torch.save([net.state_dict(), modifier.state_dict()], f"{folder}/{world}-{rank}.pt")
if world > 1:
    dist.destroy_process_group()
"""


def test_two_ranks_equal_one_process(tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), *numbers], env=env)
        for numbers in ("10", "20", "21")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    one, first, second = (
        torch.utils._pytree.tree_leaves(torch.load(tmp_path / name, weights_only=True))
        for name in ("1-0.pt", "2-0.pt", "2-1.pt")
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(one, first, strict=True))
    assert len(one) == 6
