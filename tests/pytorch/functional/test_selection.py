from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional import selection
from sparseml.pytorch.functional.selection import (
    joined,
    lowest_mask,
    prune_count,
    require_numbers,
    shuffled,
    split_like,
)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64]
# few distinct values, so that ties are the rule
tied_scores = st.lists(st.integers(-2, 3), min_size=1, max_size=40)


def brute_force_keep(values: list[float], count: int) -> list[bool]:
    """Sort by score, then let later entries go first."""
    order = sorted(range(len(values)), key=lambda index: (values[index], -index))
    pruned = set(order[:count])
    return [index not in pruned for index in range(len(values))]


@settings(deadline=None, max_examples=150)
@given(values=tied_scores, data=st.data(), dtype=st.sampled_from(DTYPES))
def test_lowest_mask_equals_brute_force(values, data, dtype):
    count = data.draw(st.integers(0, len(values)))
    keep = lowest_mask(torch.tensor(values, dtype=dtype), count)
    assert keep.dtype == torch.bool
    assert keep.tolist() == brute_force_keep(values, count)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), data=st.data())
def test_without_ties_a_permutation_of_scores_permutes_the_mask(seed, data):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randperm(30, generator=generator).double()
    order = torch.randperm(30, generator=generator)
    count = data.draw(st.integers(0, 30))
    assert torch.equal(lowest_mask(scores[order], count), lowest_mask(scores, count)[order])


def test_shape_is_kept_and_strides_do_not_matter():
    scores = torch.arange(12.0).reshape(3, 4).t()
    keep = lowest_mask(scores, 5)
    assert keep.shape == (4, 3)
    assert torch.equal(keep, scores > 4)


def test_infinities_rank_first_and_last():
    scores = torch.tensor([float("inf"), 1.0, float("-inf"), 2.0])
    assert lowest_mask(scores, 2).tolist() == [True, False, False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_nan_scores_are_refused(dtype):
    scores = torch.tensor([1.0, float("nan"), 2.0, float("nan")], dtype=dtype)
    with pytest.raises(ValueError, match="scores: 2 of 4 values are NaN"):
        lowest_mask(scores, 0)
    with pytest.raises(ValueError, match=r"fc\.weight: 2 of 4 values are NaN"):
        require_numbers(scores, "fc.weight")


@pytest.mark.parametrize("count", [-1, 5])
def test_counts_out_of_range_are_refused(count):
    with pytest.raises(ValueError, match=f"cannot prune {count} of 4 entries"):
        lowest_mask(torch.zeros(4), count)


@settings(deadline=None, max_examples=100)
@given(values=tied_scores, data=st.data())
def test_spreading_concerns_only_the_lowest_score_of_all(values, data):
    count = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values, dtype=torch.float32)
    keep = lowest_mask(scores, count, spread_ties=True)
    assert int((~keep).sum()) == count
    lowest = [place for place, value in enumerate(values) if value == min(values)]
    if 0 < count < len(lowest):
        random.Random(42).shuffle(lowest)
        assert sorted((~keep).nonzero()[:, 0].tolist()) == sorted(lowest[:count])
    else:
        assert torch.equal(keep, lowest_mask(scores, count))


def test_the_shuffle_of_very_many_is_repeatable(monkeypatch):
    monkeypatch.setattr(selection, "_MOST_SHUFFLED", 10)
    order = shuffled(torch.arange(100))
    assert torch.equal(order, shuffled(torch.arange(100)))
    assert not torch.equal(order, torch.arange(100))
    assert torch.equal(order.sort().values, torch.arange(100))


def test_joining_and_splitting():
    tensors = [torch.ones(2, 3).half(), torch.zeros(4, dtype=torch.float64)]
    flat = joined(tensors)
    assert flat.dtype == torch.float64 and flat.shape == (10,)
    assert joined(tensors[:1]).dtype == torch.float16
    parts = split_like(flat > 0.5, tensors)
    assert [part.shape for part in parts] == [(2, 3), (4,)]
    assert [part.all().item() for part in parts] == [True, False]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_lowest_go_whatever_the_dtype(dtype):
    values = torch.randint(-5, 6, (7, 9), generator=torch.Generator().manual_seed(1)).to(dtype)
    in_order = values.flatten().sort().values
    for count in range(1, 63):
        keep = lowest_mask(values, count)
        assert torch.equal(values[~keep].sort().values, in_order[:count])


def test_weights_that_require_gradients_are_left_alone():
    weight = torch.nn.Parameter(torch.tensor([3.0, 1.0, 2.0]))
    assert lowest_mask(weight, 1).tolist() == [True, False, True]
    assert weight.tolist() == [3.0, 1.0, 2.0]


def test_prune_count_rounds_half_to_even():
    assert [prune_count(5, 0.5), prune_count(7, 0.5), prune_count(10, 0.26)] == [2, 4, 3]


@pytest.mark.parametrize("sparsity", [-0.1, 1.5, 90, float("nan")])
def test_prune_count_wants_a_fraction(sparsity):
    with pytest.raises(ValueError, match="sparsity is a fraction between 0 and 1, found"):
        prune_count(10, sparsity)
