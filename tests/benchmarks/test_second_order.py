"""The benchmark's baselines compute what ours do, and its plot shows what was measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sparseml.pytorch.functional.second_order.elimination import eliminate

COUNT, DAMP = 12, 1e-2


@pytest.fixture
def small(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(benchmark, "BLOCK", 6)
    monkeypatch.setattr(benchmark, "DAMP", DAMP)
    return benchmark


def _published_inverse(small: ModuleType, grads: torch.Tensor, fused: bool) -> torch.Tensor:
    inverse = torch.eye(6).repeat(4, 1, 1) / DAMP
    for grad in grads.view(COUNT, 4, 6):
        small.rank_one_term(inverse, grad, COUNT, fused)
    return inverse


@pytest.mark.parametrize("fused", [False, True])
def test_the_published_inverse_is_ours(small: ModuleType, fused: bool) -> None:
    grads = small.gradients(COUNT, 4, torch.device("cpu"))
    published = _published_inverse(small, grads, fused)
    found = small.factored(grads).inverse.view(4, 6, 6)
    torch.testing.assert_close(found, published, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("fused", [False, True])
def test_the_published_elimination_goes_in_our_order(small: ModuleType, fused: bool) -> None:
    found = small.factored(small.gradients(COUNT, 4, torch.device("cpu")))
    weights = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    order = eliminate(weights, found.inverse, found.live, floor=found.floor).order
    state = (found.inverse.clone(), weights.clone(), torch.zeros(4, 6, dtype=torch.bool))
    for step in range(6):
        before = state[2].clone()
        small.downdate_step(state, fused)
        assert torch.equal((state[2] & ~before).nonzero()[:, 1], order[:, step].long())


def test_the_published_mfac_diagonal_is_ours(small: ModuleType) -> None:
    grads = small.gradients(COUNT, 4, torch.device("cpu"))
    found = small.FisherInverseFast(grads.clone(), DAMP).diag()
    torch.testing.assert_close(found, small.mfac_recursion(grads, DAMP), rtol=1e-3, atol=1e-3)


def test_the_plot_has_the_line_through_the_points(benchmark: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plotting = importlib.import_module("plot_second_order")
    points = [{"d": d, "seconds": 0.5 + 3e-4 * d} for d in (100.0, 200.0, 400.0)]
    assert plotting.line(points, "d") == pytest.approx((3e-4, 0.5))
    gradients = [{"N": point["d"], "seconds": point["seconds"]} for point in points]
    content = {"linearity": {"by_weights": points, "by_gradients": gradients}}
    found = []
    for _ in range(2):
        plotting.plot(tmp_path / "cost.svg", content)
        found.append((tmp_path / "cost.svg").read_text())
    assert found[0] == found[1]
    assert [found[0].count(f'id="axes_{number}"') for number in (1, 2, 3)] == [1, 1, 0]
