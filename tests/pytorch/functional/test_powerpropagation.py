"""Weights that stand for a power of themselves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.powerpropagation import powerpropagated, rescaled

W = torch.tensor([0.0, 0.5, -2.0, 3.0], dtype=torch.float64)
ALPHAS = st.floats(1.0, 4.0)


def test_values():
    assert powerpropagated(W, 2.0).tolist() == [0.0, 0.25, -4.0, 9.0]
    assert torch.equal(powerpropagated(W, 1.0), W)
    assert torch.equal(powerpropagated(W, torch.tensor(3.0)), W**3)


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0, 3.0])
def test_gradients(alpha):
    weight = W.clone().requires_grad_()
    powerpropagated(weight, alpha).sum().backward()
    assert torch.allclose(weight.grad, alpha * W.abs() ** (alpha - 1))


def test_second_derivatives():
    weight = W[1:].clone().requires_grad_()
    assert torch.autograd.gradcheck(powerpropagated, (weight, 1.5))
    assert torch.autograd.gradgradcheck(powerpropagated, (weight, 1.5))


@given(ALPHAS, ALPHAS, st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_rescaled_weights_act_the_same(old, new, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(20, generator=generator, dtype=torch.float64)
    values[::5] = 0.0
    weight = values.clone().requires_grad_()
    ((powerpropagated(weight, old) - 1) ** 2).sum().backward()
    moved, grad = rescaled(values, weight.grad, old, new)
    assert torch.allclose(powerpropagated(moved, new), powerpropagated(values, old))
    assert (moved[::5] == 0).all() and grad.isfinite().all()
    again = moved.clone().requires_grad_()
    ((powerpropagated(again, new) - 1) ** 2).sum().backward()
    used = values != 0
    assert torch.allclose(grad[used], again.grad[used])


def test_without_gradient_and_in_the_extreme():
    tiny = torch.tensor([1e-38, 1e-45])
    moved, grad = rescaled(tiny, None, 1.0, 4.0)
    assert grad is None and moved.isfinite().all() and (moved > 0).all()
