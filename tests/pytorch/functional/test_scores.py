from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.scores import magnitude, movement, saliency


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_magnitude_keeps_dtype_and_values(dtype):
    weight = torch.tensor([-2.0, 0.5, 0.0], dtype=dtype, requires_grad=True)
    scores = magnitude(weight)
    assert scores.dtype == dtype
    assert not scores.requires_grad
    assert scores.tolist() == [2.0, 0.5, 0.0]


def test_movement_is_positive_for_weights_that_leave_zero():
    weight = torch.tensor([2.0, 2.0, -3.0, -3.0, 0.0], dtype=torch.float64)
    grad = torch.tensor([-1.0, 1.0, 1.0, -1.0, 5.0], dtype=torch.float64)
    stepped = weight - 0.1 * grad
    scores = movement(weight, grad)
    assert torch.allclose(scores, torch.tensor([0.02, -0.02, 0.03, -0.03, 0.0]).double())
    assert torch.equal(scores > 0, stepped.abs() > weight.abs() + (weight == 0).double())
    assert torch.allclose(movement(weight, grad, rate=1.0), 100 * scores)


def test_saliency_is_the_first_order_change_of_the_loss():
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    factors = torch.tensor([3.0, 1.0, -4.0], dtype=torch.float64)
    loss = (weight * factors).sum()  # linear, so first order is exact
    loss.backward()
    change = torch.stack(
        [loss - (weight * factors * (torch.arange(3) != i)).sum() for i in range(3)]
    )
    assert torch.allclose(saliency(weight, weight.grad), change.abs())


def test_small_products_of_half_precision_survive():
    small = torch.full((1,), 1e-4, dtype=torch.float16)
    assert (small * small).item() == 0.0
    assert movement(small, -small).item() > 0
    assert saliency(small, small).item() > 0
