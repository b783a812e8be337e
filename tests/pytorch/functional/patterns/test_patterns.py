from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseml.pytorch.functional.budgets import Uniform
from sparseml.pytorch.functional.patterns import (
    CHANNEL,
    FILTER,
    FOUR_BLOCK,
    NM,
    REDUCTIONS,
    Block,
    Pattern,
    RowMajorBlock,
    Runs,
    Slice,
    Unstructured,
    parse_pattern,
    reduce_dims,
)
from sparseml.pytorch.functional.select import select

SPARSITIES = st.floats(0.0, 1.0)
SEEDS = st.integers(0, 10_000)


def random_scores(*shape: int, seed: int = 0, ties: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if ties:
        return torch.randint(0, 3, shape, generator=generator).double()
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def pattern_mask(scores: Tensor, pattern: Pattern, sparsity: float) -> Tensor:
    return select([scores], pattern, Uniform(), sparsity)[0]


def nm_mask(scores: Tensor, keep: int, group: int) -> Tensor:
    return pattern_mask(scores, NM(keep, group), 1 - keep / group)


@settings(deadline=None, max_examples=60)
@given(sparsity=SPARSITIES, seed=SEEDS, ties=st.booleans())
def test_unstructured_counts_are_exact(sparsity, seed, ties):
    scores = random_scores(5, 3, 2, seed=seed, ties=ties)
    mask = pattern_mask(scores, Unstructured(), sparsity)
    assert int((~mask).sum()) == round(30 * sparsity)
    assert not mask.any() or not (~mask).any() or scores[mask].min() >= scores[~mask].max()


def brute_force_blocks(scores: Tensor, rows: int, cols: int, sparsity: float) -> Tensor:
    """Rectangles one by one; scores without ties."""
    out, in_, *kernel = scores.shape
    corners = list(
        itertools.product(
            range(0, out, rows), range(0, in_, cols), *(range(size) for size in kernel)
        )
    )
    means = {
        (r, c, *k): scores[(slice(r, r + rows), slice(c, c + cols), *k)].mean().item()
        for r, c, *k in corners
    }
    mask = torch.ones_like(scores, dtype=torch.bool)
    for r, c, *k in sorted(corners, key=means.__getitem__)[: round(len(corners) * sparsity)]:
        mask[(slice(r, r + rows), slice(c, c + cols), *k)] = False
    return mask


@settings(deadline=None, max_examples=40)
@given(
    block=st.sampled_from([(1, 1), (1, 4), (4, 1), (2, 2), (4, 4), (2, 4), (8, 1)]),
    kernel=st.sampled_from([(), (3,), (2, 3)]),
    sparsity=SPARSITIES,
    seed=SEEDS,
)
def test_blocks_are_true_rectangles(block, kernel, sparsity, seed):
    scores = random_scores(8, 4, *kernel, seed=seed)
    mask = pattern_mask(scores, Block(*block), sparsity)
    assert torch.equal(mask, brute_force_blocks(scores, *block, sparsity))


def test_minus_one_spans_the_dimension():
    scores = random_scores(6, 4, 3)
    assert torch.equal(
        pattern_mask(scores, Block(-1, 2), 0.5), pattern_mask(scores, Block(6, 2), 0.5)
    )


def test_a_filter_is_a_block_of_all_inputs_for_linear_layers():
    scores = random_scores(6, 4)
    rows = pattern_mask(scores, Block(1, -1), 0.5)
    assert torch.equal(rows, pattern_mask(scores, FILTER, 0.5))
    assert torch.equal(rows.t(), pattern_mask(scores.t(), CHANNEL, 0.5))


@pytest.mark.parametrize("pattern", [FILTER, CHANNEL])
@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 3), (6, 8, 3, 2)])
def test_slices_go_as_a_whole(pattern, shape):
    scores = random_scores(*shape).abs()
    mask = pattern_mask(scores, pattern, 0.5)
    others = [dim for dim in range(len(shape)) if dim != pattern.dim]
    kept = mask.double().mean(others)
    assert set(kept.tolist()) == {0.0, 1.0}
    means = scores.mean(others)
    assert int((kept == 0).sum()) == shape[pattern.dim] // 2
    assert means[kept == 1].min() > means[kept == 0].max()


def test_filters_of_a_vector_are_its_entries():
    assert pattern_mask(torch.tensor([3.0, 1.0, 2.0, 4.0]), FILTER, 0.5).tolist() == [
        True,
        False,
        False,
        True,
    ]


def test_the_reduction_decides_which_filter_goes():
    scores = torch.tensor([[3.0, 0.0, 0.0], [1.5, 1.5, 1.5]])
    keeps_first = {
        reduce: pattern_mask(scores, Slice(0, reduce), 0.5)[0].all().item() for reduce in REDUCTIONS
    }
    assert keeps_first == {"l2": True, "max": True, "mean": False, "min": False, "sum": False}


def test_reductions_of_half_precision_are_done_in_single():
    huge = torch.full((2, 70_000), 1.0, dtype=torch.float16)
    assert reduce_dims(huge, (1,), "sum").tolist() == [70_000.0, 70_000.0]


def test_unknown_reductions_are_refused():
    with pytest.raises(ValueError, match="reduce must be one of"):
        reduce_dims(torch.ones(2, 2), (1,), "median")


def brute_force_nm(scores: Tensor, keep: int, group: int) -> Tensor:
    mask = torch.zeros_like(scores, dtype=torch.bool)
    out, in_, *kernel = scores.shape
    for o, first, *k in itertools.product(
        range(out), range(0, in_, group), *(range(size) for size in kernel)
    ):
        values = {i: scores[(o, i, *k)].item() for i in range(first, first + group)}
        for i in sorted(values, key=lambda i: (-values[i], i))[:keep]:
            mask[(o, i, *k)] = True
    return mask


@settings(deadline=None, max_examples=40)
@given(
    pair=st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2), (4, 8), (2, 8)]),
    kernel=st.sampled_from([(), (3,), (2, 2)]),
    seed=SEEDS,
    ties=st.booleans(),
)
def test_n_of_m_along_the_inputs(pair, kernel, seed, ties):
    keep, group = pair
    scores = random_scores(3, 2 * group, *kernel, seed=seed, ties=ties)
    mask = nm_mask(scores, keep, group)
    assert torch.equal(mask, brute_force_nm(scores, keep, group))
    counts = mask.movedim(1, -1).reshape(-1, group).sum(1)
    assert set(counts.tolist()) == {keep}


def test_n_of_m_grows_group_by_group():
    scores = random_scores(4, 16).abs()
    full = nm_mask(scores, 2, 4)
    previous = torch.ones_like(full)
    for sparsity in (0.0, 0.125, 0.25, 0.375, 0.5):
        mask = pattern_mask(scores, NM(2, 4), sparsity)
        assert int((~mask).sum()) == round(64 * sparsity)
        assert not (mask & ~previous).any()  # nothing comes back
        assert not (full & ~mask).any()  # nothing goes that the full pattern keeps
        previous = mask
    assert torch.equal(previous, full)


def test_n_of_m_takes_first_the_groups_that_lose_least():
    scores = torch.tensor([[9.0, 8.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.5]])
    assert pattern_mask(scores, NM(2, 4), 0.25).int().tolist() == [[1, 1, 1, 1, 1, 1, 0, 0]]


@pytest.mark.parametrize("shape", [(8, 16), (8, 16, 3), (8, 16, 3, 3), (4, 8, 2, 2, 2)])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_runs_are_blocks_of_one_output_where_they_divide_the_inputs(shape, sparsity):
    scores = random_scores(*shape)
    expected = pattern_mask(scores, Block(1, 4), sparsity)
    assert torch.equal(pattern_mask(scores, FOUR_BLOCK, sparsity), expected)
    assert torch.equal(pattern_mask(scores, RowMajorBlock(1, 4), sparsity), expected)


def test_the_last_run_of_a_row_may_be_shorter():
    scores = torch.tensor([[5.0, 5, 5, 5, 1, 2], [1, 1, 1, 1, 9, 9]])
    assert pattern_mask(scores, Runs(4), 0.5).int().tolist() == [
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert pattern_mask(torch.tensor([4.0, 4, 4, 4, 1]), Runs(4), 0.2).tolist() == [True] * 4 + [
        False
    ]
    narrow = pattern_mask(random_scores(4, 3, 2, 2), Runs(4), 0.5)
    assert narrow.sum(1).flatten().sort().values.tolist() == [0] * 8 + [3] * 8


@settings(deadline=None, max_examples=60)
@given(
    shape=st.sampled_from([(5,), (4, 6), (3, 7, 2), (2, 9, 2, 2), (6, 3)]),
    sparsity=SPARSITIES,
    seed=SEEDS,
    ties=st.booleans(),
)
def test_shorter_runs_count_as_what_they_are(shape, sparsity, seed, ties):
    mask = pattern_mask(random_scores(*shape, seed=seed, ties=ties), Runs(4), sparsity)
    assert abs(int((~mask).sum()) - round(mask.numel() * sparsity)) <= 2


def test_row_major_blocks_are_no_rectangles():
    # as SparseML 1.x: a [2, 2] block prunes the same run of four as [1, 4]
    scores = random_scores(4, 8)
    square = pattern_mask(scores, RowMajorBlock(2, 2), 0.5)
    assert torch.equal(square, pattern_mask(scores, RowMajorBlock(1, 4), 0.5))
    assert not torch.equal(square, pattern_mask(scores, Block(2, 2), 0.5))
    deep = random_scores(4, 6, 3)
    assert torch.equal(
        pattern_mask(deep, RowMajorBlock(1, -1), 0.5), pattern_mask(deep, Block(1, -1), 0.5)
    )


def test_signs_count_in_means():
    scores = torch.tensor([[-9.0, -9, -9, -9, 1, 1, 1, 1]])
    assert pattern_mask(scores, FOUR_BLOCK, 0.5).int().tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_l2_of_a_vector_forgets_signs():
    assert pattern_mask(torch.tensor([-3.0, 1.0]), Slice(0, "l2"), 0.5).tolist() == [True, False]
    assert pattern_mask(torch.tensor([-3.0, 1.0]), FILTER, 0.5).tolist() == [False, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pattern_mask(torch.ones(6, 4), Block(4, 4), 0.5), r"4x4 do not divide .*\(6, 4\)"),
        (lambda: pattern_mask(torch.ones(6), Block(1, 4), 0.5), "need an output and an input"),
        (lambda: Block(0, 4), "at least 1x1"),
        (lambda: Block(1, -2), "at least 1x1"),
        (lambda: Runs(0), "at least 1 long"),
        (lambda: pattern_mask(torch.ones(()), Runs(4), 0.5), "block4 needs a dimension"),
        (lambda: pattern_mask(torch.ones(6), CHANNEL, 0.5), "needs a dimension 1"),
        (lambda: nm_mask(torch.ones(4, 6), 2, 4), r"multiple of 4, found shape \(4, 6\)"),
        (lambda: nm_mask(torch.ones(8), 2, 4), "needs an input dimension"),
        (lambda: NM(4, 4), "0 < N < M, found 4:4"),
        (lambda: NM(0, 4), "0 < N < M, found 0:4"),
        (lambda: pattern_mask(torch.ones(4, 8), NM(2, 4), 0.6), "2:4 reaches a sparsity of 0.5"),
        (lambda: pattern_mask(torch.ones(4, 8), Unstructured(), 90), "between 0 and 1, found 90"),
        (
            lambda: pattern_mask(torch.ones(4, 4), RowMajorBlock(3, 1), 0.5),
            r"blocks of \[3, 1\] do not divide a tensor of shape \(4, 4\)",
        ),
        (lambda: pattern_mask(torch.ones(4, 4), RowMajorBlock(1, 0), 0.5), "do not divide"),
        (lambda: pattern_mask(torch.ones(4), RowMajorBlock(1, 4), 0.5), "at least two dimensions"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


ALL = [
    Unstructured(),
    Block(2, 2),
    Block(1, -1),
    FILTER,
    CHANNEL,
    NM(2, 4),
    FOUR_BLOCK,
    RowMajorBlock(2, 2),
]


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_nan_scores_never_give_a_mask(pattern):
    scores = torch.ones(4, 8)
    scores[1, 2] = float("nan")
    for sparsity in (0.0, 0.5):
        with pytest.raises(ValueError, match="NaN"):
            pattern_mask(scores, pattern, sparsity)


@pytest.mark.parametrize("pattern", ALL, ids=str)
@pytest.mark.parametrize(
    "shape", [(), (8,), (4, 8), (3, 8), (4, 6), (4, 8, 3), (8, 4, 2, 2), (0, 8)], ids=str
)
def test_a_shape_can_be_checked_without_a_tensor(pattern, shape):
    try:
        pattern.check(shape)
    except ValueError:
        with pytest.raises(ValueError):
            pattern_mask(torch.ones(shape), pattern, 0.5)
    else:
        assert pattern_mask(torch.ones(shape), pattern, 0.5).shape == shape


@pytest.mark.parametrize("pattern", ALL, ids=str)
def test_each_pattern_is_named_as_in_recipes(pattern):
    text = str(pattern)
    assert parse_pattern([2, 2] if text.startswith("[") else text) == pattern


def test_which_units_are_runs_of_inputs():
    runs = {str(pattern): pattern.run for pattern in [*ALL, Block(1, 8), Runs(2)]}
    assert runs == {
        "unstructured": 1,
        "2x2": 0,
        "1xchannel": 0,
        "filter": 0,
        "channel": 0,
        "2:4": 4,
        "block4": 4,
        "[2, 2]": 0,
        "1x8": 8,
        "block2": 2,
    }


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("unstructured", Unstructured()),
        ("filter", FILTER),
        ("channel", CHANNEL),
        ("block4", FOUR_BLOCK),
        ("4x1", Block(4, 1)),
        ("16x32", Block(16, 32)),
        ("1xchannel", Block(1, -1)),
        ("channelx1", Block(-1, 1)),
        ("2xchannel", Block(2, -1)),
        ("2:4", NM(2, 4)),
        (" 4 : 8 ", NM(4, 8)),
        ("tensorrt", NM(2, 4)),
        ([1, 4], RowMajorBlock(1, 4)),
        ([-1, 2], RowMajorBlock(-1, 2)),
    ],
)
def test_words_for_patterns(text, pattern):
    assert parse_pattern(text) == pattern


@pytest.mark.parametrize(
    "text", ["banana", "4x", "", "1,2", "channelxchannel", [1], [1, 2, 3], ["1", 2], None, 4]
)
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="mask_type must be one of"):
        parse_pattern(text)


def test_misspelt_words_name_the_nearest():
    with pytest.raises(ValueError, match=r"found 'unstructerd'; did you mean 'unstructured'\?"):
        parse_pattern("unstructerd")


def test_a_whole_row_is_a_filter_of_a_linear_layer_and_one_position_of_a_convolution():
    scores = random_scores(6, 4)
    rows = pattern_mask(scores, parse_pattern("1xchannel"), 0.5)
    assert torch.equal(rows, pattern_mask(scores, FILTER, 0.5))
    deep = pattern_mask(random_scores(6, 4, 3), parse_pattern("1xchannel"), 0.5)
    assert set(deep.sum(1).flatten().tolist()) == {0, 4}
