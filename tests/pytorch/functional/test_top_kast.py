from __future__ import annotations

import torch

from sparseml.pytorch.functional.top_kast import exploration_decay


def test_exploring_weights_shrink_more():
    weight = torch.tensor([2.0, -2.0, 2.0], dtype=torch.float64)
    forward = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    backward = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    new = exploration_decay(weight, forward, backward, rate=0.01, density=0.2)
    assert torch.allclose(new, torch.tensor([1.98, -1.9, 2.0], dtype=torch.float64))


def test_it_is_a_gradient_step_on_the_regulariser():
    torch.manual_seed(0)
    weight = torch.randn(50, dtype=torch.float64, requires_grad=True)
    forward = (torch.rand(50) < 0.3).double()
    backward = ((torch.rand(50) < 0.5) | (forward == 1)).double()
    loss = 0.5 * (weight * forward).pow(2).sum()
    loss = loss + 0.5 / 0.3 * (weight * (backward - forward)).pow(2).sum()
    loss.backward()
    expected = weight.detach() - 0.05 * weight.grad
    found = exploration_decay(weight.detach(), forward, backward, 0.05, 0.3)
    assert torch.allclose(found, expected)


def test_masks_of_ones_decay_like_weight_decay():
    weight, ones = torch.randn(5), torch.ones(5)
    assert torch.allclose(exploration_decay(weight, ones, ones, 0.1, 1.0), weight * 0.9)
