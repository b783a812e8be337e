"""The examples in docs/adding_a_pruner.md work as they stand there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "adding_a_pruner.md"
LIMITS = {"relative": 15, "running_saliency": 60, "obd": 40}

# a package path is extended, so that the files are found where the page puts them
SCRIPT = """
import importlib, sys, torch
from pathlib import Path
from torch import nn
import sparseml.pytorch.sparsification.pruning as pruning
root = Path(sys.argv[1])
pruning.__path__.append(str(root / "sparseml/pytorch/sparsification/pruning"))
for name in ("relative", "running_saliency", "obd"):
    importlib.import_module(f"sparseml.pytorch.sparsification.pruning.modifier_pruning_{name}")
from sparseml.pytorch.optim import ScheduledModifierManager

RECIPE = (root / "recipe.yaml").read_text()
DATA = [([torch.randn(6, 8)], {}, torch.randn(6, 4)) for _ in range(4)]
SAMPLER = {"data_loader_builder": lambda: DATA, "loss_fn": nn.functional.mse_loss,
           "progress_bar": False}

def fresh(name, more):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    recipe = RECIPE.replace("RelativeMagnitude", name) + more
    manager = ScheduledModifierManager.from_yaml(recipe)
    stepper = manager.modify(net, optimizer, steps_per_epoch=4, grad_sampler=SAMPLER)
    return net, optimizer, manager, stepper

def run(net, optimizer, stepper, steps):
    for step in steps:
        optimizer.zero_grad()
        torch.manual_seed(step)
        (net(torch.randn(6, 8)) - 1).pow(2).mean().backward()
        stepper.step()

own = {"RelativeMagnitude": "", "RunningSaliency": "      decay: 0.8\\n",
       "BrainDamage": "      num_grads: 6\\n"}
for name, more in own.items():
    net, optimizer, manager, stepper = fresh(name, more)
    run(net, optimizer, stepper, range(9))
    saved = [part.state_dict() for part in (net, optimizer, manager)]
    torch.save(saved, root / "state.pt")
    run(net, optimizer, stepper, range(9, 14))
    modifier, = manager.modifiers
    assert type(modifier).__name__ == f"{name}PruningModifier"
    assert more.strip() in str(modifier)
    assert sum(int((net[i].weight == 0).sum()) for i in (0, 2)) == 4 * round(48 * 0.8)
    blocks = (net[0].weight == 0).reshape(4, 4, 8).sum(1)
    assert set(blocks.flatten().tolist()) == {0, 4}
    other = fresh(name, more)
    for part, state in zip(other, torch.load(root / "state.pt", weights_only=True)):
        part.load_state_dict(state)
    run(other[0], other[1], other[3], range(9, 14))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other[0].parameters())), name
    manager.finalize(net)
print("as described")
"""


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def lines_of_code(source: str) -> int:
    """Lines that are neither blank nor comment nor docstring."""
    texts = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    spoken = {
        line
        for node in texts
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    numbered = enumerate(source.splitlines(), start=1)
    return sum(bool(t.strip()) and t[0] != "#" and n not in spoken for n, t in numbered)


def test_the_examples_run_resume_and_read_their_recipes(tmp_path):
    if not PAGE.exists():
        pytest.skip("the docs are not part of this checkout")
    found = {}
    for source in blocks_of("python"):
        path = tmp_path / source.splitlines()[0].removeprefix("# src/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
        found[path.stem.removeprefix("modifier_pruning_")] = lines_of_code(source)
    assert found.keys() == LIMITS.keys()
    assert all(found[name] < limit for name, limit in LIMITS.items()), found
    (tmp_path / "recipe.yaml").write_text(blocks_of("yaml")[0], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "as described"
