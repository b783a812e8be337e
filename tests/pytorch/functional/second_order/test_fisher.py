from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.second_order.blocks import LAYOUTS, block_layout
from sparseml.pytorch.functional.second_order.fisher import BlockFisher, EmpiricalBlockFisherInverse


def _grads(shape, count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator, dtype=torch.float64)


def _factor(layout, grads, damp=1e-2, mask=None, **options):
    fisher = BlockFisher(layout, dtype=torch.float64, **options)
    for grad in grads:
        fisher.accumulate(grad)
    return fisher.factor(damp, mask)


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("shape", [(7, 9), (13,), (4, 6, 3, 3)])
def test_inverse_is_that_of_the_dense_fisher_matrix(oracle, kind, shape):
    grads = _grads(shape)
    layout = block_layout(shape, 8, kind)
    inverse = _factor(layout, grads)
    for r, block in enumerate(layout.to_blocks(grads).unbind(1)):
        expected = torch.linalg.inv(oracle.fisher(block, 1e-2))
        on = inverse.live[r]
        torch.testing.assert_close(inverse.inverse[r][on][:, on], expected[on][:, on])
        alone = 100.0 * torch.eye(layout.block_size, dtype=torch.float64)[~on]
        torch.testing.assert_close(inverse.inverse[r][~on], alone)
    assert inverse.dampening.tolist() == [1e-2] * layout.num_blocks
    torch.testing.assert_close(
        1 / inverse.floor[inverse.live],
        layout.to_blocks(grads).square().mean(0)[inverse.live] + 1e-2,
    )


def test_equals_the_published_rank_one_recursion():
    grads, damp, count = _grads((12,)), 1e-3, 40
    recursion = torch.eye(12, dtype=torch.float64) / damp
    for g in grads:
        v = recursion @ g
        recursion -= torch.outer(v, v) / (count + g @ v)
    inverse = _factor(block_layout((12,), 12), grads, damp)
    torch.testing.assert_close(inverse.inverse[0], recursion, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 5))
def test_chunks_and_batches_do_not_matter(count, chunk, extra):
    grads = _grads((5, 6), count)
    layout = block_layout((5, 6), 7)
    one_by_one = _factor(layout, grads, chunk=chunk)
    together = BlockFisher(layout, dtype=torch.float64, chunk=chunk + extra)
    together.accumulate(grads[: count // 2])
    together.accumulate(grads[count // 2 :])
    assert together.count == count
    torch.testing.assert_close(together.factor(1e-2).inverse, one_by_one.inverse)


@pytest.mark.parametrize("size", [1, 6])
def test_pruned_weights_are_isolated(oracle, size):
    shape, grads = (6, 6), _grads((6, 6))
    mask = (torch.arange(36).reshape(shape) % 3 != 0).float()
    layout = block_layout(shape, size)
    inverse = _factor(layout, grads, mask=mask)
    alone = _factor(layout, grads * mask, mask=mask)
    torch.testing.assert_close(inverse.inverse, alone.inverse)
    torch.testing.assert_close(inverse.diag()[mask == 0], torch.full((12,), 100.0).double())
    for r in range(layout.num_blocks):
        on = inverse.live[r]
        block = layout.to_blocks(grads)[:, r][:, on]
        expected = torch.linalg.inv(oracle.fisher(block, 1e-2))
        torch.testing.assert_close(inverse.inverse[r][on][:, on], expected)
        assert not inverse.inverse[r][on][:, ~on].any()


def test_parts_of_a_weight_add_up_to_the_whole():
    shape, grads = (5, 7), _grads((5, 7))
    layout = block_layout(shape, 8)
    whole = _factor(layout, grads)
    parts = [_factor(layout, grads, blocks=part) for part in (slice(0, 2), slice(2, None))]
    vector = _grads(shape, 1)[0]
    torch.testing.assert_close(sum(part.diag() for part in parts), whole.diag())
    torch.testing.assert_close(sum(part.mul(vector) for part in parts), whole.mul(vector))


def test_sums_of_two_ranks_add_up():
    shape, grads = (5, 7), _grads((5, 7))
    layout = block_layout(shape, 8)
    ranks = [BlockFisher(layout, dtype=torch.float64) for _ in range(2)]
    for index, grad in enumerate(grads):
        ranks[index % 2].accumulate(grad)
    for rank in ranks:
        rank.flush()
    ranks[0].blocks += ranks[1].blocks
    ranks[0].count += ranks[1].count
    torch.testing.assert_close(ranks[0].factor(1e-2).inverse, _factor(layout, grads).inverse)


def test_single_precision_is_close_to_double():
    grads = _grads((16, 16), 512)
    layout = block_layout((16, 16), 32)
    fisher = BlockFisher(layout)
    fisher.accumulate(grads)
    assert fisher.blocks.dtype == torch.float32
    single, double = fisher.factor(1e-2), _factor(layout, grads)
    torch.testing.assert_close(single.diag().double(), double.diag(), rtol=1e-5, atol=0)


def test_dampening_rises_only_where_rounding_ate_it_and_says_so():
    generator = torch.Generator().manual_seed(0)
    grads = torch.randn(3, 2, 32, generator=generator)
    grads[:, 1] *= 1e4  # squares of 1e8: the dampening is below their rounding errors
    fisher = BlockFisher(block_layout((2, 32), 32))
    fisher.accumulate(grads)
    inverse = fisher.factor(1e-4)
    assert float(inverse.dampening[0]) == pytest.approx(1e-4)
    assert 1.0 < float(inverse.dampening[1]) < 1e4
    assert bool((inverse.diag() > 0).all()) and bool(inverse.inverse.isfinite().all())


def test_weights_of_half_precision_and_their_gradients_are_taken():
    fisher = BlockFisher(block_layout((4, 4), 4))
    fisher.accumulate(torch.ones(4, 4, dtype=torch.bfloat16))
    inverse = fisher.factor(1.0)
    weight = torch.randn(4, 4).to(torch.bfloat16)
    new, _ = inverse.update(weight, torch.eye(4, dtype=torch.bool))
    assert bool(new.isfinite().all()) and not new.diagonal().any()


@pytest.mark.parametrize("damp", [0, 0.0, -1e-7, float("nan"), float("inf")])
def test_damp_must_be_positive(damp):
    fisher = BlockFisher(block_layout((4,), 4))
    fisher.accumulate(torch.ones(4))
    with pytest.raises(ValueError, match="damp must be a finite number above 0"):
        fisher.factor(damp)


def test_wrong_use():
    layout = block_layout((4, 2), 4)
    with pytest.raises(ValueError, match="float32 or float64"):
        BlockFisher(layout, dtype=torch.float16)
    fisher = BlockFisher(layout)
    with pytest.raises(ValueError, match="shape"):
        fisher.accumulate(torch.ones(2, 4))
    with pytest.raises(ValueError, match="no gradient"):
        fisher.factor(1e-3)
    fisher.accumulate(torch.full((4, 2), float("nan")))
    with pytest.raises(ValueError, match="not finite"):
        fisher.factor(1e-3)
    used = BlockFisher(layout)
    used.accumulate(torch.ones(4, 2))
    used.factor(1e-3)
    with pytest.raises(RuntimeError, match="already"):
        used.factor(1e-3)


def test_old_name_and_methods(oracle):
    grads = _grads((10,), 6).float()
    inverse = EmpiricalBlockFisherInverse(8, 4, 10, 1e-2, "cpu")
    for grad in grads:
        inverse.add_grad(grad)
    vector = torch.arange(10.0)
    for start in (0, 4, 8):
        block = grads[:, start : start + 4].double()
        # the sum is divided by the number announced, not by that of the gradients added
        dense = 1e-2 * torch.eye(block.shape[1]).double() + block.T @ block / 8
        expected = torch.linalg.inv(dense).float()
        part = slice(start, start + 4)
        torch.testing.assert_close(inverse.diag()[part], expected.diagonal(), rtol=1e-4, atol=0)
        torch.testing.assert_close(
            inverse.mul(vector)[part], expected @ vector[part], rtol=1e-4, atol=1e-3
        )
    with pytest.raises(RuntimeError, match="after"):
        inverse.add_grad(grads[0])
    with pytest.raises(ValueError, match="num_grads"):
        EmpiricalBlockFisherInverse(0, 4, 10, 1e-2, "cpu")
