from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparseml.pytorch.functional.scores import (
    drop_and_grow_scores,
    exploration_decay,
    magnitude,
    movement,
    saliency,
)
from sparseml.pytorch.functional.selection import lowest_mask, prune_count


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


def test_small_weights_make_room_for_large_gradients():
    weight = torch.tensor([[0.0, 5.0, -1.0], [0.0, 3.0, 0.0]], dtype=torch.float64)
    gradient = torch.tensor([[-9.0, 0.0, 1.0], [2.0, 0.0, 8.0]], dtype=torch.float64)
    scores = drop_and_grow_scores(weight, gradient, kept=2)
    top = torch.finfo(torch.float64).max
    assert scores.tolist() == [[9, top, 1], [2, top, 8]]
    assert lowest_mask(scores, 2).tolist() == [[True, True, False], [False, True, True]]


@given(st.integers(0, 12), st.integers(0, 12), st.floats(0, 1), st.integers(0, 99))
def test_dropping_and_growing_by_brute_force(size, pruned, replaced, seed):
    pruned = min(size, pruned)
    generator = torch.Generator().manual_seed(seed)
    weight, gradient = torch.randn(2, size, generator=generator, dtype=torch.float64)
    kept = size - pruned - prune_count(size - pruned, replaced)
    mask = lowest_mask(drop_and_grow_scores(weight, gradient, kept), pruned)
    by_size = sorted(range(size), key=lambda i: -abs(float(weight[i])))[:kept]
    rest = sorted(set(range(size)) - set(by_size), key=lambda i: -abs(float(gradient[i])))
    expected = {*by_size, *rest[: size - pruned - kept]}
    assert set(mask.nonzero()[:, 0].tolist()) == expected


def test_half_precision_is_widened():
    scores = drop_and_grow_scores(torch.ones(3).half(), torch.ones(3).half(), 1)
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx([torch.finfo(torch.float32).max, 1, 1])


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
