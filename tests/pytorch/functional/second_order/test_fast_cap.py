from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.second_order.blocks import block_layout
from sparseml.pytorch.functional.second_order.fast_cap import ReducedFisher, fast_cap, prune_columns

GRADS = torch.tensor(
    [[1, 0, 2, -1, 0, 1, 1, 0], [0.5, -1, 0, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0.5, 0, -1, 2]]
)


def _fisher(grads, shape, size, **options):
    fisher = ReducedFisher(block_layout(shape, size), **options)
    fisher.accumulate(grads.reshape(-1, *shape))
    return fisher


def _correlated(shape, count=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    grads = torch.randn(count, *shape, generator=generator)
    weight = torch.randn(shape, generator=generator)
    return weight, grads + 2.0 * grads.roll(1, dims=-1) + 2.0 * grads.roll(2, dims=-1)


def test_golden_vector():
    fisher = _fisher(GRADS, (2, 4), 4)
    expected = [
        [1.6667, 0.3333, 1, 0.3333],
        [0.3333, 2.6667, 1.3333, -0.6667],
        [1, 1.3333, 4.6667, -2.6667],
        [0.3333, -0.6667, -2.6667, 4],
    ]
    torch.testing.assert_close(fisher.matrix(), torch.tensor(expected), rtol=0, atol=1e-4)
    weight = torch.tensor([[1, -0.5, 2, 0.25], [-0.3, 0.8, 0.1, -1.2]])
    new, keep, damp = fast_cap(weight, fisher, 4, damp=0.01, columns=4)
    pruned = torch.tensor([[1, 0, 1.847998, 0], [0, 0.797745, 0, -1.291301]])
    torch.testing.assert_close(new, pruned, rtol=0, atol=2e-6)
    assert torch.equal(keep, pruned != 0)
    assert damp == pytest.approx(0.01)


@pytest.mark.parametrize("columns", [3, 8, None])
def test_what_is_right_of_the_last_pruned_column_is_the_best_it_can_be(columns):
    """All errors go to the right, so there the gradient of the quadratic loss vanishes."""
    weight, grads = _correlated((1, 8))
    fisher = _fisher(grads, (1, 8), 8, dtype=torch.float64)
    new, keep, _ = fast_cap(weight.double(), fisher, 4, damp=0.1, columns=columns)
    matrix = fisher.matrix() + torch.eye(8).double() * fisher.matrix().diagonal().mean() / 10
    change = new[0] - weight[0].double()
    last = int((~keep[0]).nonzero()[-1, 0])
    assert last < 7 and int(keep.sum()) == 4
    assert not (matrix @ change)[last + 1 :].abs().gt(1e-9).any()


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9)),
    size=st.integers(1, 12),
    columns=st.one_of(st.none(), st.integers(1, 12)),
    sparsity=st.floats(0, 1),
    seed=st.integers(0, 1000),
    gone=st.floats(0, 1),
)
def test_the_count_is_exact_and_gone_weights_stay_gone(shape, size, columns, sparsity, seed, gone):
    weight, grads = _correlated(shape, 8, seed)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) >= gone
    mask[0, 0] = True
    fisher = _fisher(grads, shape, size, mask=mask)
    count = max(round(weight.numel() * sparsity), int((~mask).sum()))
    new, keep, _ = fast_cap(weight, fisher, count, damp=1e-2, mask=mask, columns=columns)
    assert int((~keep).sum()) == count
    assert not new[~keep].any()
    assert not (keep & ~mask).any()
    assert bool(new.isfinite().all())


def test_differs_from_magnitude_and_loses_less_on_correlated_data(oracle):
    for seed in range(5):
        weight, grads = _correlated((8, 24), seed=seed)
        fisher = _fisher(grads, (8, 24), 24)
        new, keep, _ = fast_cap(weight, fisher, 96, damp=1e-2)
        threshold = weight.abs().flatten().kthvalue(96).values
        by_size = weight * (weight.abs() > threshold)
        assert int((by_size == 0).sum()) == 96
        assert not torch.equal(keep, by_size != 0)
        matrix = fisher.matrix().double()
        losses = [
            sum(oracle.loss(weight[r], other[r], matrix) for r in range(8))
            for other in (new, by_size)
        ]
        assert losses[0] < 0.9 * losses[1]


def test_gradients_of_gone_weights_are_left_out():
    _, grads = _correlated((4, 8))
    mask = (torch.arange(32).reshape(4, 8) % 3 != 0).float()
    masked = _fisher(grads * mask, (4, 8), 8)
    torch.testing.assert_close(_fisher(grads, (4, 8), 8, mask=mask).matrix(), masked.matrix())


def test_padding_and_conv_weights():
    weight, grads = _correlated((5, 3, 3, 3))
    fisher = _fisher(grads, (5, 3, 3, 3), 16)
    new, keep, _ = fast_cap(weight.half(), fisher, 60, damp=1e-2, columns=4)
    assert new.shape == weight.shape and new.dtype == torch.float16
    assert int((~keep).sum()) == 60


def test_wrong_arguments():
    weight, grads = _correlated((2, 4))
    empty = ReducedFisher(block_layout((2, 4), 4))
    with pytest.raises(ValueError, match="no gradient"):
        fast_cap(weight, empty, 2, damp=1e-2)
    with pytest.raises(ValueError, match="all gradients are zero"):
        fast_cap(weight, _fisher(grads * 0, (2, 4), 4), 2, damp=1e-2)
    fisher = _fisher(grads, (2, 4), 4)
    for damp in (0.0, -1.0):
        with pytest.raises(ValueError, match="damp"):
            fast_cap(weight, fisher, 2, damp=damp)
    for count in (-1, 9):
        with pytest.raises(ValueError, match="zeros"):
            fast_cap(weight, fisher, count, damp=1e-2)
    live = torch.zeros(2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="8 of them gone"):
        prune_columns(weight, torch.eye(4), live, 4)
