from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def linear_net() -> nn.Module:
    """8 → 16 → 4; weights of 128 and 64, biases of 16 and 4."""
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))


@pytest.fixture
def conv_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Flatten()
    )


@pytest.fixture
def sparsities() -> Callable[[nn.Module], dict[str, float]]:
    """Fraction of zeros of every parameter."""

    def measure(module: nn.Module) -> dict[str, float]:
        return {name: (p == 0).double().mean().item() for name, p in module.named_parameters()}

    return measure


@pytest.fixture
def train() -> Callable[..., Iterator[float]]:
    """Train on random data with modifiers; yields the epoch after every step."""

    def run(
        module: nn.Module,
        modifiers: list[Any],
        steps: int,
        optimizer: torch.optim.Optimizer | None = None,
        shape: tuple[int, ...] = (6, 8),
        steps_per_epoch: int = 4,
    ) -> Iterator[float]:
        optimizer = optimizer or torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        manager = ScheduledModifierManager(modifiers)
        stepper = manager.modify(module, optimizer, steps_per_epoch=steps_per_epoch)
        generator = torch.Generator().manual_seed(1)
        for step in range(steps):
            optimizer.zero_grad()
            inputs = torch.randn(shape, generator=generator)
            (module(inputs) - 1.0).pow(2).mean().backward()
            stepper.step()
            yield step / steps_per_epoch

    return run


class Dots(nn.Module):
    """A loss that is linear in its weights, so that its gradients are what is fed to it."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Module() for _ in shapes)
        for layer, shape in zip(self.layers, shapes, strict=True):
            layer.weight = nn.Parameter(torch.randn(shape, dtype=torch.float64))

    def forward(self, *grads: torch.Tensor) -> torch.Tensor:
        pairs = zip(self.layers, grads, strict=True)
        return sum((layer.weight * grad).sum() for layer, grad in pairs)

    def gradients(self, count: int) -> list[list[torch.Tensor]]:
        """Correlated ones, ``count`` of each weight."""
        grads = []
        for layer in self.layers:
            noise = torch.randn(count, *layer.weight.shape, dtype=torch.float64)
            mixed = noise.flatten(1) @ torch.randn(noise[0].numel(), noise[0].numel()).double()
            grads.append(mixed.view_as(noise) / 4)
        return [list(group) for group in zip(*grads, strict=True)]


@pytest.fixture
def dots() -> type[Dots]:
    return Dots


@pytest.fixture
def feeding() -> Callable[..., dict[str, Any]]:
    """A grad sampler that feeds given gradients to a net of dots, over and over."""

    def make(gradients: list[list[torch.Tensor]]) -> dict[str, Any]:
        batches = [(group, {}, None) for group in gradients]
        return {"data_loader_builder": lambda: batches, "loss_fn": lambda output, _: output}

    return make


@pytest.fixture
def images() -> dict[str, Any]:
    """A grad sampler of twelve batches of five images of four channels, for ``conv_net``."""
    generator = torch.Generator().manual_seed(3)
    batches = [
        ([torch.randn(5, 4, 3, 3, generator=generator)], {}, torch.arange(5)) for _ in range(12)
    ]
    return {"data_loader_builder": lambda: batches, "loss_fn": nn.functional.cross_entropy}


@pytest.fixture(scope="session")
def start_ranks() -> Callable[[str, int, Path], Callable[[], list[Any]]]:
    """Run a script in several processes; call what comes back for what each of them has saved.

    Rank ``r`` of ``n`` gets a folder as its argument and saves to ``<n>-<r>.pt`` in it.
    """

    def start(script: str, world: int, folder: Path) -> Callable[[], list[Any]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        common = {**os.environ, **common, "WORLD_SIZE": str(world)}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(folder)],
                env={**common, "RANK": str(rank)},
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]

        def results() -> list[Any]:
            for process in processes:
                _, errors = process.communicate(timeout=240)
                assert process.returncode == 0, errors
            files = [folder / f"{world}-{rank}.pt" for rank in range(world)]
            return [torch.load(file, weights_only=True) for file in files]

        return results

    return start
