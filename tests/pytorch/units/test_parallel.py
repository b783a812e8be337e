from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sparseml.pytorch.units import compress_strucure_pruned_module

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from sparseml.pytorch.units import compress_strucure_pruned_module as thin

rank = int(sys.argv[1])
store = dist.FileStore(sys.argv[2], 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)

def pruned():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    for param in net[0].parameters():
        param.data[1:3] = 0
    return net

def outcome(net, optimizer=None):
    try:
        thin(net, {"0.weight,0.bias": ["1.weight"]}, optimizer=optimizer)
    except RuntimeError as error:
        return str(error)
    return str(net)

net = pruned()
wrapped = DistributedDataParallel(net)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
print("inside:", outcome(net, optimizer).replace(chr(10), " "))
print("outside:", outcome(pruned(), optimizer).replace(chr(10), " "))
print("at the end:", outcome(wrapped).replace(chr(10), " "))
net = pruned()
mesh = init_device_mesh("cpu", (2,))
net[0].weight = nn.Parameter(distribute_tensor(net[0].weight.detach(), mesh))
print("sharded:", outcome(net).replace(chr(10), " "))
dist.destroy_process_group()
"""


@pytest.mark.usefixtures("warm")
def test_distributed_training_is_not_broken_silently(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    for out, errors in [process.communicate(timeout=120) for process in ranks]:
        assert len(out.splitlines()) == 4, errors
        inside, outside, end, sharded = out.splitlines()
        assert "inside DistributedDataParallel" in inside
        assert "out_features=2" in outside
        assert "out_features=2" in end
        assert "0.weight is sharded over several processes" in sharded


def test_a_single_process_needs_no_check() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with torch.no_grad():
        net[0].weight[0] = 0
    compress_strucure_pruned_module(net, {"0.weight": ["1.weight"]}, optimizer=optimizer)
    assert net[0].out_features == 3
    with pytest.raises(ValueError, match="no parameter"):
        compress_strucure_pruned_module(net, {"2.weight": []}, optimizer=optimizer)
