"""The benchmark compares what it says it compares."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

pytest.importorskip("timm")


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(20, 30), torch.nn.Linear(30, 10)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1(inputs).relu())


@pytest.mark.parametrize(
    ("way", "sparsity"), [("bare_step", 0.0), ("manager_step", 0.9), ("hooks_step", 0.9)]
)
def test_every_linear_weight_is_masked(benchmark: ModuleType, way: str, sparsity: float) -> None:
    model = Small()
    step = getattr(benchmark, way)(model)
    for _ in range(3):
        step(torch.randn(4, 20), torch.arange(4))
    model(torch.randn(1, 20))  # hooks mask before the next forward pass
    for layer in (model.fc1, model.fc2):
        assert float((layer.weight == 0).float().mean()) == pytest.approx(sparsity)
        if sparsity:
            assert float((layer.weight.grad == 0).float().mean()) >= sparsity - 1e-6


def test_functions_take_turns(benchmark: ModuleType) -> None:
    timing = sys.modules["_timing"]
    order: list[str] = []
    functions = {name: lambda name=name: order.append(name) for name in "abc"}
    taken = timing.take_turns(functions, rounds=4, warmup=2)
    assert "".join(order) == "bca" + "cab" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(times) for name, times in taken.items()} == {"a": 4, "b": 4, "c": 4}


def test_ratios_are_taken_within_rounds(benchmark: ModuleType) -> None:
    timing = sys.modules["_timing"]
    found = timing.ratios({"a": [1.0, 2.0, 4.0], "b": [2.0, 4.0, 8.0]}, base="a")
    assert found == {"a": (1.0, 1.0, 1.0), "b": (2.0, 2.0, 2.0)}


def test_masking_is_timed_by_itself(benchmark: ModuleType) -> None:
    taken = benchmark.masking_seconds(Small(), torch.randn(4, 20), torch.arange(4), "wall")
    assert 0.0 < taken < 60.0
