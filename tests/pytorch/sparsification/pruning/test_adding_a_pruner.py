"""The example in docs/adding_a_pruner.md works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "adding_a_pruner.md"

# a package path is extended, so that the two files are found where the page puts them
SCRIPT = """
import sys, torch
from pathlib import Path
from torch import nn
import sparseml.pytorch.functional, sparseml.pytorch.sparsification.pruning as pruning
root = Path(sys.argv[1])
sparseml.pytorch.functional.__path__.append(str(root / "sparseml/pytorch/functional"))
pruning.__path__.append(str(root / "sparseml/pytorch/sparsification/pruning"))
from sparseml.pytorch.functional.running_saliency import running_saliency
import sparseml.pytorch.sparsification.pruning.modifier_pruning_running_saliency as added
from sparseml.pytorch.optim import ScheduledModifierManager

one = torch.ones(3)
assert torch.allclose(running_saliency(one, 2 * one, -3 * one, 0.5), 3.5 * one)

def fresh():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    manager = ScheduledModifierManager.from_yaml((root / "recipe.yaml").read_text())
    return net, optimizer, manager, manager.modify(net, optimizer, steps_per_epoch=4)

def run(net, optimizer, stepper, steps):
    for step in steps:
        optimizer.zero_grad()
        torch.manual_seed(step)
        (net(torch.randn(6, 8)) - 1).pow(2).mean().backward()
        stepper.step()

net, optimizer, manager, stepper = fresh()
run(net, optimizer, stepper, range(9))
saved = [part.state_dict() for part in (net, optimizer, manager)]
torch.save(saved, root / "state.pt")
run(net, optimizer, stepper, range(9, 14))
modifier, = manager.modifiers
assert type(modifier).__name__ == "RunningSaliencyPruningModifier"
assert modifier.decay == 0.8 and "decay: 0.8" in str(modifier)
assert sum(int((net[i].weight == 0).sum()) for i in (0, 2)) == 4 * round(48 * 0.8)
blocks = (net[0].weight == 0).reshape(4, 4, 8).sum(1)
assert set(blocks.flatten().tolist()) == {0, 4}

other = fresh()
for part, state in zip(other, torch.load(root / "state.pt", weights_only=True)):
    part.load_state_dict(state)
run(other[0], other[1], other[3], range(9, 14))
assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other[0].parameters()))
manager.finalize(net)
print("as described")
"""


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_runs_resumes_and_reads_its_recipe(tmp_path):
    if not PAGE.exists():
        pytest.skip("the docs are not part of this checkout")
    sources = blocks_of("python")
    assert len(sources) == 2, "a pruner takes at most two new files"
    for source in sources:
        path = tmp_path / source.splitlines()[0].removeprefix("# src/")
        path.parent.mkdir(parents=True)
        path.write_text(source, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(blocks_of("yaml")[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "as described"
