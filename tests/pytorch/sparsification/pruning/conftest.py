from __future__ import annotations

from collections.abc import Callable, Iterator
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
