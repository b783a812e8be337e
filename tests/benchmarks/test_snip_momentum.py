"""The plain formulation is the one of the worked examples, and both sides prune alike."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from sparseml.pytorch.functional.budgets import Reserving
from sparseml.pytorch.functional.patterns import Block
from sparseml.pytorch.functional.select import select

pytest.importorskip("transformers")


def blocks(values: list[int]) -> list[torch.Tensor]:
    parts = torch.tensor(values, dtype=torch.float32).split([12, 8, 20])
    shapes = ((2, 6), (1, 8), (2, 10))
    pairs = zip(parts, shapes, strict=True)
    return [part.view(shape).repeat_interleave(4, dim=0) for part, shape in pairs]


@pytest.mark.parametrize(
    ("cap", "floor", "expected"),
    [(0.98, 0.0, [11, 7, 2]), (0.75, 0.25, [9, 6, 5]), (0.98, 0.3, [11, 3, 6])],
)
def test_the_plain_formulation(
    benchmark: ModuleType, cap: float, floor: float, expected: list[int]
) -> None:
    masks = benchmark.plain_masks(blocks(list(range(1, 41))), 0.5, floor, cap)
    assert [int((~mask).sum()) // 4 for mask in masks] == expected


@pytest.mark.parametrize("seed", range(5))
def test_both_prune_the_same(benchmark: ModuleType, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.rand(64, 16, generator=generator) * (1 + place) for place in range(5)]
    plain = benchmark.plain_masks(scores, 0.8, 0.5, 0.95)
    ours = select(scores, Block(4, 1), Reserving(0.95, 0.5, 0.8), 0.8)
    assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True))


def test_what_is_timed(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "bert", lambda layers, hidden, make=benchmark.bert: make(1, 64))
    options = benchmark.argparse.Namespace(rounds=1, steps=1, clock="cpu")
    found = benchmark.update_times(options)
    assert found["weights"] == 12 * 64 * 64
    assert found["pruned"] == found["pruned_plain"] == int(0.9 * found["weights"] / 4) * 4
    assert benchmark.upkeep_times(options)["share_of_step"] > 0
