from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.budgets import Global, Uniform
from sparseml.pytorch.functional.patterns import FILTER, Block
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.sparsification.pruning import (
    BlockMaskCreator,
    FourBlockMaskCreator,
    GroupedPruningMaskCreator,
    PatternMaskCreator,
)

SHAPES = [(8, 16), (8, 16, 3), (8, 16, 3, 3), (4, 8, 2, 2, 2)]


def pattern_mask(scores, pattern, sparsity):
    return select([scores], pattern, Uniform(), sparsity)[0]


def one_mask(creator, scores, sparsity, **kwargs):
    return creator.create_sparsity_masks([scores], sparsity, **kwargs)[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_four_blocks_are_runs_of_four_inputs(shape, sparsity):
    scores = torch.randn(shape)
    mask = one_mask(FourBlockMaskCreator(), scores, sparsity)
    assert torch.equal(mask, pattern_mask(scores, Block(1, 4), sparsity).to(mask.dtype))
    runs = scores.numel() // 4
    assert int((mask == 0).sum()) == 4 * round(runs * sparsity)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_1x4_block_equals_four_blocks(shape):
    scores = torch.randn(shape)
    for sparsity in (0.25, 0.6):
        four = one_mask(FourBlockMaskCreator(), scores, sparsity)
        assert torch.equal(four, one_mask(BlockMaskCreator([1, 4]), scores, sparsity))


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
    assert not torch.equal(square, pattern_mask(scores, Block(2, 2), 0.5).float())


def test_whole_dimensions_and_missing_ones():
    scores = torch.rand(4, 6, 3)
    whole = one_mask(BlockMaskCreator([1, -1, 1]), scores, 0.5)
    assert set(whole.sum(1).flatten().tolist()) == {0.0, 6.0}
    assert torch.equal(whole, pattern_mask(scores, Block(1, -1), 0.5).float())


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


def test_patterns_count_weights_where_units_differ_in_size():
    scores = [torch.rand(4, 64), torch.rand(64, 4)]
    creator = PatternMaskCreator(FILTER)
    masks = creator.create_sparsity_masks(scores, 0.5, global_sparsity=True)
    assert sum(int((mask == 0).sum()) for mask in masks) == 256
    expected = select(scores, FILTER, Global(), 0.5)
    assert all(torch.equal(a, b.float()) for a, b in zip(masks, expected, strict=True))


@pytest.mark.parametrize(
    ("creator", "shape", "groups"),
    [
        (FourBlockMaskCreator(), (3, 8), (6, 1)),
        (FourBlockMaskCreator("l2"), (3, 6, 2), (12, 1)),
        (FourBlockMaskCreator("max"), (9,), (3, 1)),
        (BlockMaskCreator([2, 4]), (4, 8), (4, 1, 1)),
        (BlockMaskCreator([1, -1], "min"), (4, 6, 3, 2), (4, 1, 6)),
        (PatternMaskCreator(Block(2, 2)), (4, 8), (2, 4)),
    ],
)
def test_groups_can_be_spread_over_the_tensor_again(creator, shape, groups):
    scores = torch.rand(shape)
    grouped = creator.group_tensor(scores)
    assert grouped.shape == groups
    mask = creator._map_mask_to_tensor((grouped > grouped.median()).float(), scores.shape)
    assert mask.shape == shape
    assert torch.equal(creator.group_tensor(mask), (grouped > grouped.median()).float() * (
        2.0 if creator._pattern.reduce == "l2" else 1.0
    ))  # fmt: skip


class Columns(GroupedPruningMaskCreator):
    """What a user of SparseML 1.x writes: columns, of which the first tensor's first stays."""

    def group_tensor(self, tensor):
        return self.reduce_tensor(tensor, 0, "max")

    def _map_mask_to_tensor(self, grouped_mask, original_tensor_shape, tensor_idx=None):
        pruned = 1.0 - grouped_mask
        if tensor_idx == 0:
            pruned[:, 0] = 0.0
        return (1.0 - pruned).expand(original_tensor_shape)


def test_classes_that_say_how_to_group_and_to_spread():
    scores = [torch.tensor([[1.0, 2, 3], [1, 2, 0]]), torch.tensor([[4.0, 1], [0, 5]])]
    creator = Columns()
    masks = creator.create_sparsity_masks(scores, [0.5, 0.5])
    assert [mask.tolist() for mask in masks] == [[[1, 0, 1]] * 2, [[0, 1]] * 2]
    # five columns: two fifths of them go, whatever their sizes
    masks = creator.create_parameter_masks([s.half() for s in scores], 0.4, True)
    assert [mask.tolist() for mask in masks] == [[[1, 0, 1]] * 2, [[1, 1]] * 2]
    assert {mask.dtype for mask in masks} == {torch.float16}
    assert str(creator) == "Columns"
    # zeros are drawn as single weights are
    zeros = creator.create_sparsity_masks([torch.rand(1, 1), torch.zeros(2, 8)], [0.0, 0.25])[1]
    assert zeros[0].tolist() == [1, 1, 1, 0, 0, 1, 1, 1]


def test_an_override_in_a_class_derived_from_four_blocks_counts():
    class Negative(FourBlockMaskCreator):
        def group_tensor(self, tensor):
            return -super().group_tensor(tensor)

    scores = torch.tensor([[1.0, 1, 1, 1, 2, 2, 2, 2]])
    assert one_mask(Negative(), scores, 0.5).tolist() == [[1, 1, 1, 1, 0, 0, 0, 0]]


def test_unknown_groupings_are_refused():
    with pytest.raises(ValueError, match="grouping_fn_name must be one of"):
        one_mask(FourBlockMaskCreator("median"), torch.rand(2, 4), 0.5)
