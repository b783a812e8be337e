from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.budgets import Uniform
from sparseml.pytorch.functional.patterns import Block
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.sparsification.pruning import (
    BlockMaskCreator,
    FourBlockMaskCreator,
    GroupedPruningMaskCreator,
    PatternMaskCreator,
)

SHAPES = [(8, 16), (8, 16, 3), (8, 16, 3, 3), (4, 8, 2, 2, 2)]


def one_mask(creator, scores, sparsity, **kwargs):
    return creator.create_sparsity_masks([scores], sparsity, **kwargs)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_four_blocks_are_runs_of_four_inputs(shape, sparsity):
    scores = torch.randn(shape)
    mask = one_mask(FourBlockMaskCreator(), scores, sparsity)
    assert torch.equal(mask, select([scores], Block(1, 4), Uniform(), sparsity)[0].to(mask.dtype))
    runs = scores.numel() // 4
    assert int((mask == 0).sum()) == 4 * round(runs * sparsity)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_1x4_block_equals_four_blocks(shape):
    scores = torch.randn(shape)
    for sparsity in (0.25, 0.6):
        four = one_mask(FourBlockMaskCreator(), scores, sparsity)
        assert torch.equal(four, one_mask(BlockMaskCreator([1, 4]), scores, sparsity))


def test_four_blocks_of_linear_layers_are_1x4_rectangles():
    scores = torch.randn(8, 16)
    mask = one_mask(FourBlockMaskCreator(), scores, 0.5)
    assert torch.equal(mask, select([scores], Block(1, 4), Uniform(), 0.5)[0].float())


def test_the_last_run_may_be_shorter():
    scores = torch.tensor([[5.0, 5, 5, 5, 1, 2], [1, 1, 1, 1, 9, 9]])
    assert one_mask(FourBlockMaskCreator(), scores, 0.5).tolist() == [
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert one_mask(FourBlockMaskCreator(), torch.tensor([4.0, 4, 4, 4, 1]), 0.5).tolist() == [
        1,
        1,
        1,
        1,
        0,
    ]
    three_inputs = one_mask(FourBlockMaskCreator(), torch.rand(4, 3, 2, 2), 0.5)
    assert three_inputs.sum(1).flatten().sort().values.tolist() == [0.0] * 8 + [3.0] * 8


def test_signs_count():
    scores = torch.tensor([[-9.0, -9, -9, -9, 1, 1, 1, 1]])
    assert one_mask(FourBlockMaskCreator(), scores, 0.5).tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]]


def test_blocks_follow_the_row_major_order():
    # as SparseML 1.x: a [2, 2] block prunes the same run of four as [1, 4]
    scores = torch.randn(4, 8)
    square, run = (one_mask(BlockMaskCreator(shape), scores, 0.5) for shape in ([2, 2], [1, 4]))
    assert torch.equal(square, run)
    assert not torch.equal(square, select([scores], Block(2, 2), Uniform(), 0.5)[0].float())


def test_whole_dimensions_and_missing_ones():
    scores = torch.rand(4, 6, 3)
    whole = one_mask(BlockMaskCreator([1, -1, 1]), scores, 0.5)
    assert set(whole.sum(1).flatten().tolist()) == {0.0, 6.0}
    assert torch.equal(whole, select([scores], Block(1, -1), Uniform(), 0.5)[0].float())


def test_global_groups():
    scores = [torch.full((2, 8), 1.0), torch.full((2, 8), 2.0)]
    masks = FourBlockMaskCreator().create_sparsity_masks(scores, 0.5, global_sparsity=True)
    assert [mask.sum().item() for mask in masks] == [0, 16]


@pytest.mark.parametrize(
    ("shape", "tensor", "message"),
    [
        ([4], None, r"block_shape is \[out, in\]"),
        ([1, 4, 2], None, "must be 1 beyond the first two"),
        ([3, 1], (4, 4), r"blocks of \[3, 1\] do not divide a tensor of shape \(4, 4\)"),
        ([1, 0], (4, 4), "do not divide"),
        ([1, 4], (8,), "at least two dimensions"),
    ],
)
def test_impossible_blocks_are_refused(shape, tensor, message):
    with pytest.raises(ValueError, match=message):
        one_mask(BlockMaskCreator(shape), torch.ones(tensor or (4, 4)), 0.5)


def test_reduce_tensor():
    values = torch.tensor([[3.0, -4.0], [1.0, 1.0]])
    reduce = GroupedPruningMaskCreator.reduce_tensor
    assert reduce(values, 1, "l2", keepdim=False).tolist() == [5, pytest.approx(2**0.5)]
    assert reduce(values, 1, "mean").tolist() == [[-0.5], [1.0]]
    assert reduce(values, -1, "max").tolist() == [[3.0], [1.0]]
    assert reduce(values, 0, "min").tolist() == [[1.0, -4.0]]
    assert reduce(values, [0, 1], "mean").tolist() == [[0.25]]
    with pytest.raises(ValueError, match=r"grouping_fn_name must be one of.*found 'sum'"):
        reduce(values, 1, "sum")
    with pytest.raises(ValueError, match="'max' takes a single dimension"):
        reduce(values, [0, 1], "max")


def test_pattern_creators_keep_the_dtype():
    scores = torch.rand(4, 8).half()
    mask = one_mask(PatternMaskCreator(Block(2, 2)), scores, 0.5)
    assert mask.dtype == torch.float16
    assert int((mask == 0).sum()) == 16
    assert str(PatternMaskCreator(Block(2, 2))) == "2x2"
