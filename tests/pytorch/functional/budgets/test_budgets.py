from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseml.pytorch.functional.budgets import (
    Counts,
    Densities,
    Global,
    Reserving,
    Uniform,
    after_removal,
    global_counts,
    sparsity_bounds,
)
from sparseml.pytorch.functional.budgets.ranking import _WINDOW, nearest_fill
from sparseml.pytorch.functional.layer_densities import DENSITY_RULES, density_counts
from sparseml.pytorch.functional.patterns import (
    FILTER,
    FOUR_BLOCK,
    NM,
    Block,
    Pattern,
    Together,
    Unstructured,
)
from sparseml.pytorch.functional.select import select
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


def pruned(scores, pattern: Pattern, budget, target, **options) -> list[int]:
    return [int((~mask).sum()) for mask in select(scores, pattern, budget, target, **options)]


def random_scores(shapes, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator) for shape in shapes]


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=3), target=st.floats(0.0, 1.0))
def test_uniform_rounds_to_the_nearest_once(sizes, target):
    scores = [torch.rand(size) for size in sizes]
    assert pruned(scores, Unstructured(), Uniform(), target) == [round(n * target) for n in sizes]
    down = pruned(scores, Unstructured(), Uniform(down=True), target)
    assert all(
        int(n * target) <= count <= n * target + 1e-6 for n, count in zip(sizes, down, strict=True)
    )
    blocks = [torch.rand(size, 4) for size in sizes]
    expected = [4 * round(size * target) for size in sizes]
    assert pruned(blocks, Block(1, 4), Uniform(), target) == expected


def test_uniform_takes_a_target_for_each():
    scores = random_scores([(10,), (20,)])
    assert pruned(scores, Unstructured(), Uniform(), [0.1, 0.9]) == [1, 18]


def test_sparsities_that_are_rounded_down_forgive_rounding_errors():
    scores = random_scores([(65_536,), (262_144,)])
    assert pruned(scores, Unstructured(), Uniform(down=True), 0.9) == [58_982, 235_929]
    assert pruned(scores, Unstructured(), Uniform(down=True), 1 - 1e-16) == [65_536, 262_144]
    groups = random_scores([(512, 1024)])
    for budget in (Uniform(down=True), Reserving(1.0)):
        assert pruned(groups, NM(2, 4), budget, 0.4999999999999999) == [262_144]


def test_counts_are_of_weights_or_of_units():
    scores = random_scores([(8, 4), (4, 4), (8, 6)])
    assert pruned(scores, Unstructured(), Counts((3, 0, 48)), 0.0) == [3, 0, 48]
    assert pruned(scores, Block(4, 1), Counts((3, 6, 48)), 0.0) == [4, 4, 48]
    assert pruned(scores, FILTER, Counts((3, 0, 8), of="units"), 0.9) == [12, 0, 48]
    together = Together(FILTER, ((0, 2),))
    assert pruned(scores, together, Counts((3, 1, 5), of="units"), 0.0) == [12, 4, 18]
    assert pruned(scores, together, Counts((8, 4, 12)), 0.0) == [8, 4, 12]
    with pytest.raises(ValueError, match="counts are of weights or of units, found 'rows'"):
        Counts((1,), of="rows")
    with pytest.raises(ValueError, match="at least 0, found -1"):
        Counts((1, -1))
    with pytest.raises(ValueError, match="20 of 16 weights cannot be pruned"):
        pruned(scores[1:2], Unstructured(), Counts((20,)), 0.0)
    with pytest.raises(ValueError, match="cannot prune 20 of 8 entries"):
        pruned(scores[:1], FILTER, Counts((20,), of="units"), 0.0)


@settings(deadline=None, max_examples=60)
@given(
    shapes=st.lists(
        st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple), min_size=1, max_size=5
    ),
    sparsity=st.floats(0.0, 1.0),
    rule=st.sampled_from(sorted(DENSITY_RULES)),
)
def test_densities_of_single_weights_are_those_of_the_shapes(shapes, sparsity, rule):
    counts = pruned(random_scores(shapes), Unstructured(), Densities(rule), sparsity)
    assert counts == density_counts(shapes, sparsity, rule)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5),
    sparsity=st.floats(0.0, 1.0),
    rule=st.sampled_from(sorted(DENSITY_RULES)),
    pattern=st.sampled_from([Block(4, 1), Block(2, 2), FILTER, FOUR_BLOCK, NM(2, 4), NM(1, 4)]),
)
def test_densities_of_units_have_the_exact_total(sizes, sparsity, rule, pattern):
    shapes = [(4 * out, 4 * in_) for out, in_ in sizes]
    total = sum(out * in_ for out, in_ in shapes)
    sparsity *= pattern.full_sparsity
    counts = pruned(random_scores(shapes), pattern, Densities(rule), sparsity)
    largest = max(in_ for _, in_ in shapes) if pattern == FILTER else 4
    snap = 0.01 * total if isinstance(pattern, NM) else 0.0  # near the full pattern it is full
    assert abs(sum(counts) - total * sparsity) <= largest / 2 + 1 + snap


def test_densities_never_ask_groups_for_more_than_they_have():
    scores = random_scores([(64, 64), (64, 8), (8, 8)])
    alone = pruned(scores, Unstructured(), Densities(), 0.45)
    assert alone[0] > 0.5 * 64 * 64
    grouped = pruned(scores, NM(2, 4), Densities(), 0.45)
    assert grouped[0] == 0.5 * 64 * 64 and sum(grouped) == 2 * round(0.45 / 2 * 4672)
    assert pruned(scores, NM(2, 4), Densities(), 0.5) == [2048, 256, 32]
    near = pruned(scores, NM(2, 4), Densities(), 0.495)  # as everywhere near the full pattern
    assert near == [2048, 256, 32]
    with pytest.raises(ValueError, match="rule must be one of"):
        Densities("erk")
    with pytest.raises(ValueError, match="at least two dimensions"):
        pruned([torch.rand(4)], Unstructured(), Densities(), 0.5)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    sparsity=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_limits_hold_to_whole_units(sizes, sparsity, seed, data):
    high = data.draw(st.floats(sparsity, 1.0))
    low = data.draw(st.floats(0.0, sparsity))
    scores = random_scores([(4, size) for size in sizes], seed)
    floors, caps = sparsity_bounds(sizes, high, low)
    floors = [min(floor, cap) for floor, cap in zip(floors, caps, strict=True)]
    total = round(sum(sizes) * sparsity)
    budget = Global(high, low)
    if (high, low) != (1.0, 0.0) and not sum(floors) <= total <= sum(caps):
        with pytest.raises(ValueError, match="cannot be pruned: the limits per tensor allow"):
            pruned(scores, Block(4, 1), budget, sparsity)
        return
    counts = [count // 4 for count in pruned(scores, Block(4, 1), budget, sparsity)]
    assert sum(counts) == total
    assert all(f <= c <= cap for f, c, cap in zip(floors, counts, caps, strict=True))
    means = [tensor.mean(0) for tensor in scores]
    assert counts == global_counts(means, total, floors, caps)


def test_floors_grow_with_the_target():
    scores = [torch.rand(100), torch.rand(100) + 10]
    budget = Global(1.0, 0.2, final=0.8)
    assert pruned(scores, Unstructured(), budget, 0.8) == [100, 60]
    assert pruned(scores, Unstructured(), budget, 0.4) == [70, 10]
    assert pruned(scores, Unstructured(), budget, 0.0) == [0, 0]
    assert pruned(scores, Unstructured(), Global(1.0, 0.2), 0.4) == [60, 20]


@pytest.mark.parametrize(
    ("pattern", "high", "low", "target"),
    [(NM(2, 4), 0.4, 0.1, 0.25), (NM(1, 4), 0.6, 0.15, 0.375), (NM(3, 4), 0.2, 0.05, 0.125)],
)
def test_limits_of_groups_are_sparsities_of_weights(pattern, high, low, target):
    scores = [torch.rand(10, 40), torch.rand(10, 40) + 10]
    assert pruned(scores, pattern, Global(high, low), target) == [400 * high, 400 * low]
    full = 2 * target
    assert pruned(scores, pattern, Global(0.98), target) == [400 * full, 0]
    assert pruned(scores, pattern, Global(0.98), full) == [400 * full, 400 * full]


def test_limits_where_units_have_many_sizes():
    scores = [torch.rand(10, 40), torch.rand(40, 10) + 10]
    counts = pruned(scores, FILTER, Global(0.8, 0.2), 0.5)
    assert counts == [320, 80]
    assert pruned(scores, FILTER, Global(0.8, 0.15), 0.5) == [320, 80]
    assert pruned(scores, FILTER, Global(0.85, 0.15), 0.5) == [320, 80]
    assert pruned(scores, FILTER, Global(0.9, 0.1), 0.5) == [360, 40]
    with pytest.raises(ValueError, match="limits per tensor, allow 0 to 720"):
        pruned(scores, FILTER, Global(0.9), 0.95)
    with pytest.raises(ValueError, match="limits per tensor, allow 400 to 800"):
        pruned(scores, FILTER, Global(1.0, 0.5), 0.4)


@pytest.mark.parametrize("budget", [Global, Reserving])
def test_limits_in_the_wrong_order(budget):
    with pytest.raises(ValueError, match=r"min_sparsity 0\.9 is above max_sparsity 0\.5"):
        budget(0.5, 0.9)
    with pytest.raises(ValueError, match="max_sparsity is a fraction between 0 and 1, found 90"):
        budget(90)


def test_a_target_beyond_the_limits():
    scores = random_scores([(4,), (6,)])
    with pytest.raises(ValueError, match=r"10 of 10 units cannot be pruned.* allow 0 to 8"):
        pruned(scores, Unstructured(), Global(0.9), 0.99)
    with pytest.raises(ValueError, match=r"0 of 10 units cannot be pruned.* allow 2 to 10"):
        pruned(scores, Unstructured(), Global(1.0, 0.1), 0.0)


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), share=st.floats(0.0, 1.0))
def test_filling_comes_within_half_of_the_largest(sizes, share):
    total = round(sum(sizes) * share)
    goes = nearest_fill(torch.tensor(sizes), total)
    assert abs(sum(itertools.compress(sizes, goes.tolist())) - total) <= max(sizes) / 2


def test_filling_takes_the_first_that_fit():
    assert nearest_fill(torch.tensor([4, 4, 1, 4, 1]), 5).tolist() == [1, 0, 1, 0, 0]
    assert nearest_fill(torch.tensor([1, 1, 8, 8]), 8).tolist() == [0, 0, 1, 0]
    assert nearest_fill(torch.tensor([2, 2, 2]), 0).tolist() == [0, 0, 0]
    assert nearest_fill(torch.tensor([3, 4, 4, 3]), 8).tolist() == [0, 1, 1, 0]
    assert nearest_fill(torch.tensor([2, 2, 2]), 60).tolist() == [1, 1, 1]


def test_many_units_of_many_sizes_are_not_sorted_as_a_whole():
    # runs of 4 and 3, more than two windows of them
    scores = random_scores([(2 * _WINDOW, 7), (100, 8)])
    masks = select(scores, FOUR_BLOCK, Global(), 0.3)
    total = sum(score.numel() for score in scores)
    assert sum(int((~mask).sum()) for mask in masks) == round(0.3 * total)
    kept, gone = [], []
    for score, mask in zip(scores, masks, strict=True):
        for run, left in ((score[:, :4], mask[:, :4]), (score[:, 4:], mask[:, 4:])):
            means = run.mean(1)
            kept.append(means[left[:, 0]])
            gone.append(means[~left[:, 0]])
    # all but the last few units go by their scores
    assert (torch.cat(gone) > torch.cat(kept).min()).sum() <= 20
