"""Sharpness-aware minimisation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import Parameter

from sparseml.run import SharpnessAware


def _loss(weights: Parameter) -> Tensor:
    scale = torch.arange(1, weights.numel() + 1, dtype=weights.dtype).view_as(weights)
    return (scale * weights**4).sum()


def _gradients(weights: Parameter, sam: SharpnessAware) -> Tensor:
    weights.grad = None
    _loss(weights).backward()
    sam.replace_gradients([weights], lambda: _loss(weights).backward())
    assert weights.grad is not None
    return weights.grad


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0.01, 0.5))
@example(167, 0.5)  # told a norm in float32 from one in float64
def test_the_gradient_is_that_at_the_perturbed_weights(seed: int, rho: float) -> None:
    start = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    weights = Parameter(start.clone())
    found = _gradients(weights, SharpnessAware(rho))
    assert torch.equal(weights.detach(), start)
    plain = 4 * torch.arange(1, 6) * start**3
    there = start + rho * plain / plain.norm()
    torch.testing.assert_close(found, 4 * torch.arange(1, 6) * there**3)


def test_adaptive_steps_are_relative_to_the_weights() -> None:
    start = torch.tensor([1.0, 0.0, -2.0])
    weights = Parameter(start.clone())
    found = _gradients(weights, SharpnessAware(0.1, adaptive=True))
    plain = 4 * torch.tensor([1.0, 2.0, 3.0]) * start**3
    there = start + 0.1 * start**2 * plain / (start.abs() * plain).norm()
    torch.testing.assert_close(found, 4 * torch.tensor([1.0, 2.0, 3.0]) * there**3)


@pytest.mark.parametrize("together", [True, False])
def test_the_smallest_weights_can_be_left_out_there(together: bool) -> None:
    small, large = Parameter(torch.full((2, 2), 0.1)), Parameter(torch.full((2, 2), 3.0))
    with torch.no_grad():
        small[0] *= 1.5
        large[0] *= 1.5
    seen: list[Tensor] = []

    def backward() -> None:
        for param in (small, large):
            param.grad = None
            seen.append(param.detach().clone())
        (_loss(small) + _loss(large)).backward()

    backward()
    seen.clear()
    sam = SharpnessAware(0.0, topk=0.5, global_sparsity=together)
    sam.replace_gradients([small, large], backward)
    zeros = [int((values == 0).sum()) for values in seen]
    assert zeros == ([4, 0] if together else [2, 2])
    assert bool((small != 0).all())


def test_weights_without_gradient_and_gradients_that_overflow_stay() -> None:
    held, other = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    held.grad = torch.tensor([float("inf"), 1.0])
    SharpnessAware(0.1).replace_gradients([held, other], lambda: pytest.fail("not to be called"))
    assert other.grad is None and held.grad.isinf().any() and torch.equal(held, torch.ones(2))


@pytest.mark.parametrize("settings", [{"rho": -1.0}, {"topk": 1.0}])
def test_settings_out_of_range(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="rho must not be negative"):
        SharpnessAware(**settings)  # type: ignore[arg-type]
