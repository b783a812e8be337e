"""What group lasso multiplies weights by, by its formulas."""

from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.group_lasso import factors_by_gradient, factors_by_weight
from sparseml.pytorch.functional.patterns import Block, Slice

UNITS = [Block(4, 1), Block(2, 3), Block(1, -1), Block(-1, 1), Slice(0), Slice(1)]


def blocks(units, tensor):
    """The entries of each unit, found by the numbers that the pattern gives them."""
    numbers = units.units_of(tensor.shape)
    return [numbers == number for number in numbers.unique()]


@pytest.mark.parametrize("shape", [(8, 6), (4, 3, 2, 2)])
@pytest.mark.parametrize("units", UNITS, ids=str)
def test_formulas(units, shape):
    torch.manual_seed(0)
    values, strength = torch.randn(shape, dtype=torch.float64), 0.3
    by_weight = factors_by_weight(values, units, strength)
    by_gradient = factors_by_gradient(values, units, strength)
    assert by_weight.dtype == by_gradient.dtype == torch.float64
    assert by_weight.shape == by_gradient.shape == values.shape
    seen = 0
    for block in blocks(units, values):
        norm = values[block].square().sum().sqrt()
        shrunk = (values * by_weight)[block]
        # the proximal step: the norm falls by the strength, the direction stays
        expected = values[block] * max(0.0, 1 - strength / norm)
        torch.testing.assert_close(shrunk, expected, rtol=1e-12, atol=0)
        c = min(strength / (norm + 1e-12), 1.0)
        torch.testing.assert_close(
            by_gradient[block], torch.full_like(shrunk, 1 - c), rtol=1e-12, atol=1e-15
        )
        seen += int(block.sum())
    assert seen == values.numel()


def test_it_is_the_minimum_of_the_regularised_distance():
    # argmin over v of |v - w|^2 / 2 + strength * |v|, by gradient descent
    torch.manual_seed(1)
    weight, strength = torch.randn(4, 1, dtype=torch.float64), 0.4
    found = weight.clone().requires_grad_()
    for _ in range(2000):
        loss = (found - weight).square().sum() / 2 + strength * found.norm()
        found.data -= 0.05 * torch.autograd.grad(loss, found)[0]
    shrunk = weight * factors_by_weight(weight, Block(4, 1), strength)
    torch.testing.assert_close(shrunk, found.detach(), rtol=1e-8, atol=1e-10)


def test_at_the_limits():
    values = torch.tensor([[3.0, 0.0, 1e-3], [4.0, 0.0, 0.0]], dtype=torch.float64)
    units = Block(2, 1)
    assert factors_by_weight(values, units, 1.0).tolist() == [[0.8, 0.0, 0.0]] * 2
    # without a gradient nothing shrinks, and no weight is turned round
    found = factors_by_gradient(values, units, 1.0)
    assert found[:, 1:].tolist() == [[1.0, 0.0]] * 2
    torch.testing.assert_close(found[:, 0], torch.full((2,), 0.8).double())
    half = factors_by_weight(values.half(), units, 1.0)
    assert half.dtype == torch.float32 and half[0, 0] == pytest.approx(0.8)
