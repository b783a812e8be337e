from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseml.pytorch.functional.budgets import (
    after_removal,
    global_counts,
    sparsity_bounds,
)
from sparseml.pytorch.functional.selection import lowest_mask

score_lists = st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=3)


def as_tensors(lists: list[list[int]]) -> list[Tensor]:
    return [torch.tensor(values, dtype=torch.float64) for values in lists]


def kept_by(scores: list[Tensor], counts: list[int]) -> list[bool]:
    masks = [lowest_mask(tensor, count) for tensor, count in zip(scores, counts, strict=True)]
    return torch.cat(masks).tolist()


@given(original=st.integers(1, 50), data=st.data())
def test_what_was_removed_counts_as_pruned(original, data):
    left = data.draw(st.integers(1, original))
    zeros = data.draw(st.integers(original - left, original))
    asked = after_removal(zeros / original, 1 - left / original)
    assert round(asked * left, 6) == zeros - (original - left)
    assert after_removal(0.0, 1 - left / original) == 0.0
    assert after_removal(0.5, 1.0) == 0.0


@settings(deadline=None, max_examples=100)
@given(lists=score_lists, data=st.data())
def test_without_bounds_it_equals_ranking_everything_at_once(lists, data):
    scores = as_tensors(lists)
    total = data.draw(st.integers(0, sum(map(len, lists))))
    together = lowest_mask(torch.cat(scores), total).tolist()
    assert kept_by(scores, global_counts(scores, total)) == together


def best_loss(scores: list[Tensor], total: int, floors: list[int], caps: list[int]) -> float:
    """Lowest sum of pruned scores over every way to split ``total``."""
    ordered = [tensor.sort().values.tolist() for tensor in scores]
    splits = itertools.product(
        *(range(low, high + 1) for low, high in zip(floors, caps, strict=True))
    )
    return min(
        sum(sum(values[:count]) for values, count in zip(ordered, split, strict=True))
        for split in splits
        if sum(split) == total
    )


@settings(deadline=None, max_examples=100)
@given(lists=score_lists, data=st.data())
def test_with_bounds_the_total_is_exact_and_the_choice_optimal(lists, data):
    scores = as_tensors(lists)
    caps = [data.draw(st.integers(0, len(values))) for values in lists]
    floors = [data.draw(st.integers(0, cap)) for cap in caps]
    total = data.draw(st.integers(sum(floors), sum(caps)))
    counts = global_counts(scores, total, floors, caps)
    assert sum(counts) == total
    assert all(f <= c <= cap for f, c, cap in zip(floors, counts, caps, strict=True))
    loss = sum(t.sort().values[:c].sum().item() for t, c in zip(scores, counts, strict=True))
    assert loss == best_loss(scores, total, floors, caps)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 200), min_size=1, max_size=4),
    low=st.integers(0, 100),
    high=st.integers(0, 100),
)
def test_bounds_are_never_overstepped_and_never_wasted(sizes, low, high):
    assume(low <= high)
    floors, caps = sparsity_bounds(sizes, max_sparsity=high / 100, min_sparsity=low / 100)
    for size, floor, cap in zip(sizes, floors, caps, strict=True):
        assert cap * 100 <= size * high < (cap + 1) * 100
        assert (floor - 1) * 100 < size * low <= floor * 100


def test_different_shapes_dtypes_and_infinities_rank_together():
    scores = [
        torch.tensor([[1.0, 5.0]], dtype=torch.float16),
        torch.tensor([float("-inf"), 2.0, 9.0], dtype=torch.float64),
        torch.tensor([0.5, float("inf")]),
    ]
    assert global_counts(scores, 4) == [1, 2, 1]


def test_caps_push_the_rest_to_other_tensors():
    scores = [torch.arange(10.0), torch.arange(10.0) + 100]
    floors, caps = sparsity_bounds([10, 10], max_sparsity=0.8)
    assert global_counts(scores, 10) == [10, 0]
    assert global_counts(scores, 10, floors, caps) == [8, 2]
    floors, caps = sparsity_bounds([10, 10], min_sparsity=0.3)
    assert global_counts(scores, 10, floors, caps) == [7, 3]


def test_what_cannot_be_is_refused():
    scores = [torch.arange(4.0), torch.arange(6.0)]
    with pytest.raises(ValueError, match=r"9 of 10 units cannot be pruned.* allow 0 to 8"):
        global_counts(scores, 9, *sparsity_bounds([4, 6], max_sparsity=0.9))
    with pytest.raises(ValueError, match=r"0 of 10 units cannot be pruned.* allow 2 to 10"):
        global_counts(scores, 0, *sparsity_bounds([4, 6], min_sparsity=0.1))
    with pytest.raises(ValueError, match="2 tensors, 1 floors and 2 caps"):
        global_counts(scores, 3, floors=[0])
    with pytest.raises(ValueError, match=r"min_sparsity 0\.9 is above max_sparsity 0\.5"):
        sparsity_bounds([4], 0.5, 0.9)
    with pytest.raises(ValueError, match="max_sparsity is a fraction between 0 and 1, found 90"):
        sparsity_bounds([4], 90)
    with pytest.raises(ValueError, match="NaN"):
        global_counts([torch.tensor([1.0, float("nan")])], 1)
