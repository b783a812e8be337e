from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.second_order.mfac import (
    FisherInverseFast,
    FisherInverseFastBlock,
    FisherInverseFastPageSwap,
    FisherInverseFastSmallBlocks,
    mfac_inverse,
    mfac_scores,
    mfac_update,
)


def _grads(count, size, seed=0):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def _dense(oracle, grads, block_size, damp):
    blocks = [torch.linalg.inv(oracle.fisher(g, damp)) for g in grads.split(block_size, dim=1)]
    return torch.block_diag(*blocks)


def _forms(grads, block_size, damp):
    """Every form that computes this, from fresh copies, for some overwrite their input."""
    forms = [
        FisherInverseFastBlock(grads.clone(), block_size, damp=damp),
        FisherInverseFastBlock(grads.clone(), block_size, damp=damp, devices=["cpu", "cpu"]),
        FisherInverseFastSmallBlocks(grads.clone(), block_size, damp=damp),
        FisherInverseFastSmallBlocks(grads.clone(), block_size, damp=damp, devices=["cpu"] * 3),
        mfac_inverse(grads.clone(), damp, block_size),
    ]
    if block_size >= grads.shape[1]:
        forms += [
            FisherInverseFast(grads.clone(), damp=damp),
            FisherInverseFast(grads.clone(), damp=damp, columns=3),
            FisherInverseFastPageSwap(grads.clone(), damp=damp, num_pages=len(grads)),
            mfac_inverse(grads.clone(), damp),
            mfac_inverse(grads.clone(), damp, num_pages=len(grads)),
        ]
    return forms


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 25), st.integers(0, 1000))
def test_all_forms_equal_the_dense_inverse(oracle, count, size, block_size, seed):
    grads = _grads(count, size, seed).double()
    vector = torch.linspace(-1, 1, size, dtype=torch.float64)
    dense = _dense(oracle, grads, block_size, 1e-2)
    for form in _forms(grads, block_size, 1e-2):
        torch.testing.assert_close(form.diag(), dense.diagonal())
        torch.testing.assert_close(form.mul(vector), dense @ vector)


def test_rows_are_those_of_the_published_recursion():
    grads, damp, count = _grads(6, 9).double(), 1e-2, 6
    past: list[tuple[torch.Tensor, float]] = []
    diagonal = torch.full((9,), 1 / damp, dtype=torch.float64)
    for g in grads:
        h = g / damp
        for row, q in past:
            h = h - row * float(row @ g) / q
        past.append((h, count + float(g @ h)))
        diagonal -= h**2 / past[-1][1]
    torch.testing.assert_close(FisherInverseFast(grads.clone(), damp).diag(), diagonal)


def test_one_block_agrees_with_the_full_form_in_single_precision():
    grads, vector = _grads(64, 512), _grads(1, 512, 1)[0]
    full = FisherInverseFast(grads.clone())
    for form in (
        FisherInverseFastBlock(grads.clone(), 512),
        FisherInverseFastSmallBlocks(grads.clone(), 512),
    ):
        for ours, theirs in ((form.diag(), full.diag()), (form.mul(vector), full.mul(vector))):
            error = (ours - theirs).square().mean().sqrt()
            assert float(error) <= 1e-5 * float(theirs.square().mean().sqrt())


def test_the_choice_of_form_follows_the_sizes():
    assert isinstance(mfac_inverse(_grads(4, 9), 1e-3), FisherInverseFast)
    assert isinstance(mfac_inverse(_grads(4, 9), 1e-3, 0, 2), FisherInverseFastPageSwap)
    assert isinstance(mfac_inverse(_grads(4, 9), 1e-3, 4), FisherInverseFastSmallBlocks)
    assert isinstance(mfac_inverse(_grads(4, 9), 1e-3, 5), FisherInverseFastBlock)


def test_scores_and_update(oracle):
    grads, weights = _grads(12, 8).double(), _grads(1, 8, 3)[0].double()
    inverse = FisherInverseFast(grads.clone(), 1e-2)
    dense = _dense(oracle, grads, 8, 1e-2)
    torch.testing.assert_close(mfac_scores(weights, inverse), weights**2 / (2 * dense.diagonal()))
    pruned = torch.zeros(8, dtype=torch.bool)
    pruned[5] = True
    expected, _ = oracle.best_rest(weights, torch.linalg.inv(dense), [5])
    torch.testing.assert_close(mfac_update(weights, inverse, pruned), expected)


def test_wrong_arguments():
    grads = _grads(4, 6)
    for damp in (0.0, -1e-5):
        with pytest.raises(ValueError, match="damp"):
            FisherInverseFast(grads, damp)
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        FisherInverseFast(grads[0])
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        FisherInverseFastSmallBlocks(grads[:0], 2)
    with pytest.raises(ValueError, match="num_pages must divide"):
        FisherInverseFastPageSwap(grads, num_pages=3)
    with pytest.raises(ValueError, match="alpha"):
        FisherInverseFastSmallBlocks(grads, 2, alpha=0.5)
    with pytest.raises(ValueError, match="block_size"):
        FisherInverseFastBlock(grads, 0)
    with pytest.raises(ValueError, match="not finite"):
        FisherInverseFast(torch.full((2, 3), float("inf")))
