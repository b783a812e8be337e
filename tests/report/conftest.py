"""Run directories made by really training, and pages rendered from them."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.report import (
    Run,
    RunDirectory,
    describe_model,
    layer_sparsities,
    measure_latency,
    read_run,
)

STEPS_PER_EPOCH = 8
#: What a name must not get away with.
HOSTILE = "</script><script>hacked=1</script>\"'><img src=x onerror=hacked=1>&amp; | pipe\nline"
RECIPE = """
modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: 4.0
  - !LearningRateFunctionModifier
    lr_func: linear
    init_lr: 0.05
    final_lr: 0.01
    start_epoch: 0.0
    end_epoch: 4.0
  - !{kind}
    params: ['re:(0|2)\\.weight']
    init_sparsity: 0.2
    final_sparsity: {final}
    start_epoch: 1.0
    end_epoch: 3.0
    update_frequency: 0.5
"""


def network() -> nn.Sequential:
    """Three linear layers, of which the recipes prune two."""
    return nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )


def data() -> tuple[Tensor, Tensor]:
    """Points ``[64, 8]`` and which of two classes each belongs to."""
    points = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    return points, (points[:, 0] * points[:, 1] > 0).long()


def evaluate(model: nn.Module) -> dict[str, float]:
    points, classes = data()
    with torch.no_grad():
        output = model(points)
    right = (output.argmax(1) == classes).float().mean().item()
    return {"accuracy": right, "loss": cross_entropy(output, classes).item()}


def train(run: RunDirectory, model: nn.Module, kind: str, final: float) -> ScheduledModifierManager:
    """Train for four epochs of eight steps, and log what a trainer logs."""
    manager = ScheduledModifierManager.from_yaml(RECIPE.format(kind=kind, final=final))
    points, classes = data()
    log = run.metrics()
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer = manager.modify(model, sgd, steps_per_epoch=STEPS_PER_EPOCH, loggers=[log])
    run.write_recipe(manager, STEPS_PER_EPOCH)
    for step in range(1, 4 * STEPS_PER_EPOCH + 1):
        batch = torch.arange(8) + 8 * (step % 8)
        loss = cross_entropy(model(points[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        log.log_scalar("train/loss", loss, step=step)
        if step % STEPS_PER_EPOCH == 0:
            log.log_scalars("test", evaluate(model), step=step)
    manager.finalize(model)
    return manager


def make_run(folder: Path, kind: str, final: float) -> Path:
    """A whole run: train, prune, save, measure."""
    torch.manual_seed(0)
    dense = network()
    model = copy.deepcopy(dense)
    points, _ = data()
    name = f"{kind.removesuffix('PruningModifier')} {final:.0%}"
    path = folder / name.replace(" ", "_").strip("%")
    with RunDirectory.start(path, name, kind, config={"lr": 0.05}, seed=0) as run:
        manager = train(run, model, kind, final)
        run.save_model(model, recipe=manager)
        run.write_result(
            {
                "dense": describe_model(dense, evaluate(dense), points),
                "sparse": describe_model(model, evaluate(model), points),
            },
            layers=layer_sparsities(model, manager),
        )
        taken = measure_latency({"dense": dense, "sparse": model}, points, rounds=12, warmup=2)
        run.write_result({name: {"latency": [latency]} for name, latency in taken.items()})
    return path


@pytest.fixture(scope="session")
def made_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs; not to be changed."""
    folder = tmp_path_factory.mktemp("runs")
    make_run(folder, "MagnitudePruningModifier", 0.8)
    make_run(folder, "GlobalMagnitudePruningModifier", 0.9)
    return folder


@pytest.fixture
def runs(made_runs: Path, tmp_path: Path) -> Path:
    """A copy of two runs, to be changed at will."""
    return Path(shutil.copytree(made_runs, tmp_path / "runs"))


@pytest.fixture
def run_path(runs: Path) -> Path:
    """The one that was pruned to 80% in each layer."""
    return runs / "Magnitude_80"


@pytest.fixture
def run(run_path: Path) -> Run:
    return read_run(run_path)
