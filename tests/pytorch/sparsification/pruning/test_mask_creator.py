from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.budgets import Uniform
from sparseml.pytorch.functional.patterns import (
    CHANNEL,
    FILTER,
    FOUR_BLOCK,
    NM,
    Block,
    Member,
    RowMajorBlock,
    Runs,
    Slice,
    Together,
    Units,
    Unstructured,
)
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.sparsification.pruning import (
    BlockMaskCreator,
    ConstantMaskCreator,
    FourBlockMaskCreator,
    NMPruningMaskCreator,
    PatternMaskCreator,
    StructuredPruningMaskCreator,
    UnstructuredPruningMaskCreator,
)
from sparseml.pytorch.sparsification.pruning.mask_creator import (
    creator_of,
    get_mask_creator,
    get_mask_creator_default,
)


def unstructured(values, target, **kwargs):
    tensors = [torch.tensor(v, dtype=torch.float32) for v in values]
    masks = UnstructuredPruningMaskCreator().create_sparsity_masks(tensors, target, **kwargs)
    return [mask.tolist() for mask in masks]


@pytest.mark.parametrize(
    ("values", "sparsity", "mask"),
    [
        ([1, 2, 2, 2, 3, 4], 0.5, [0, 1, 0, 0, 1, 1]),
        ([0, 1, 2, 3, 4], 0.5, [0, 0, 1, 1, 1]),
        # the lowest value is the threshold: drawn in a shuffled order
        ([0, 0, 0, 0, 3, 4], 0.5, [1, 0, 0, 0, 1, 1]),
        ([0, 0, 0, 0, 0, 0, 3, 4], 0.25, [1, 0, 1, 0, 1, 1, 1, 1]),
        ([1, 2, 3], 0.0, [1, 1, 1]),
        ([1, 2, 3], -0.5, [1, 1, 1]),
        ([1, 2, 3], 1.5, [1, 1, 1]),
        ([1, 2, 3], 1.0, [0, 0, 0]),
        ([1, 2, 3], 0.1, [1, 1, 1]),
    ],
)
def test_known_masks(values, sparsity, mask):
    assert unstructured([values], sparsity) == [mask]


def test_known_global_masks():
    values = [[0, 1, 2, 3], [2, 3, 4, 5]]
    assert unstructured(values, 0.5, global_sparsity=True) == [[0, 0, 0, 1], [0, 1, 1, 1]]
    assert unstructured(values, [0.5, 0.5], global_sparsity=True) == [[0, 0, 0, 1], [0, 1, 1, 1]]


@settings(deadline=None, max_examples=100)
@given(
    lists=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=3),
    sparsity=st.floats(0.0, 1.0),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_counts_are_exact_whatever_the_ties(lists, sparsity, dtype):
    tensors = [torch.tensor(values, dtype=dtype) for values in lists]
    creator = UnstructuredPruningMaskCreator()
    masks = creator.create_sparsity_masks(tensors, sparsity)
    for tensor, mask in zip(tensors, masks, strict=True):
        assert mask.dtype == dtype
        assert int((mask == 0).sum()) == round(tensor.numel() * sparsity)
    together = creator.create_sparsity_masks(tensors, sparsity, global_sparsity=True)
    assert sum(int((mask == 0).sum()) for mask in together) == round(
        sum(map(len, lists)) * sparsity
    )


def test_tensors_of_different_dtypes_rank_together():
    tensors = [torch.tensor([1.0, 4.0], dtype=torch.float16), torch.tensor([2.0, 3.0])]
    masks = UnstructuredPruningMaskCreator().create_sparsity_masks(tensors, 0.5, True)
    assert [mask.tolist() for mask in masks] == [[0, 1], [0, 1]]
    assert [mask.dtype for mask in masks] == [torch.float16, torch.float32]


def test_empty_tensors_get_empty_masks():
    assert unstructured([[], [1, 2]], 0.5) == [[], [0, 1]]
    assert UnstructuredPruningMaskCreator().create_sparsity_masks([], 0.5) == []


def test_the_shuffle_of_very_many_ties_is_exact_and_repeatable(monkeypatch):
    module = "sparseml.pytorch.functional.selection._MOST_SHUFFLED"
    monkeypatch.setattr(module, 10)
    creator, zeros = UnstructuredPruningMaskCreator(), torch.zeros(100)
    first = creator.create_sparsity_masks([zeros], 0.3)[0]
    assert int((first == 0).sum()) == 30
    assert torch.equal(first, creator.create_sparsity_masks([zeros], 0.3)[0])


@pytest.mark.parametrize("target", [1, "0.5", None, {0.5: 1}])
def test_targets_must_be_floats_or_lists(target):
    with pytest.raises(TypeError, match="target must be a float or a list of floats"):
        unstructured([[1, 2]], target)


def test_targets_must_fit_the_tensors():
    with pytest.raises(ValueError, match="1 tensors, but 2 target sparsities"):
        unstructured([[1, 2]], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"one target, found different ones: 0.3, 0.5"):
        unstructured([[1, 2], [3, 4]], [0.5, 0.3], global_sparsity=True)
    with pytest.raises(ValueError, match="NaN"):
        unstructured([[1, float("nan")]], 0.5)


def test_constant_masks_keep_what_is_not_zero():
    values = torch.tensor([[0.0, -1.0], [2.0, 0.0]], dtype=torch.float16)
    mask = ConstantMaskCreator().create_sparsity_masks([values], 0.9)[0]
    assert mask.dtype == torch.float16
    assert mask.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize(
    ("mask_type", "creator"),
    [
        ("unstructured", UnstructuredPruningMaskCreator),
        ("block4", FourBlockMaskCreator),
        ("2:4", NMPruningMaskCreator),
        ("tensorrt", NMPruningMaskCreator),
        ([1, 4], BlockMaskCreator),
    ],
)
def test_default_creators(mask_type, creator):
    for get in (get_mask_creator_default, get_mask_creator):
        assert type(get(mask_type)) is creator


@pytest.mark.parametrize("mask_type", ["filter", "4x1", "1,2", [1], [1, 2, 3], ["1", 2], None, 4])
def test_default_creators_of_old_recipes_only(mask_type):
    with pytest.raises(ValueError, match="mask_type must be one of"):
        get_mask_creator_default(mask_type)


@pytest.mark.parametrize(
    ("mask_type", "pattern"), [("filter", FILTER), ("channel", CHANNEL), ("4x2", Block(4, 2))]
)
def test_functional_patterns_as_mask_types(mask_type, pattern):
    scores = torch.rand(8, 4, 3)
    mask = get_mask_creator(mask_type).create_sparsity_masks([scores], 0.5)[0]
    assert torch.equal(mask, select([scores], pattern, Uniform(), 0.5)[0].float())


def test_unknown_mask_types_name_the_nearest():
    with pytest.raises(ValueError, match=r"found 'unstructerd'; did you mean 'unstructured'\?"):
        get_mask_creator("unstructerd")


@pytest.mark.parametrize(
    "pattern",
    [
        Unstructured(), FOUR_BLOCK, Runs(2), RowMajorBlock(2, 2, "l2"), Block(2, 2), FILTER,
        NM(2, 4), NM(1, 8),
        Together(Slice(0, "l2"), ((0, 2),)), Together(Slice(1)),
        Units(((Member(0, 0, torch.arange(8)), Member(1, 1, torch.arange(8))),)),
    ],
    ids=str,
)  # fmt: skip
def test_creators_of_patterns_prune_as_they_do(pattern):
    scores = [torch.rand(8, 16), torch.rand(4, 8), torch.rand(8, 8)]
    masks = creator_of(pattern, 3).create_parameter_masks(scores, 0.25)
    expected = select(scores, pattern, Uniform(), 0.25)
    assert all(torch.equal(a, b.float()) for a, b in zip(masks, expected, strict=True))


def test_creators_of_patterns_are_those_of_old_recipes_where_there_are_any():
    found = creator_of(Together(Slice(0, "l2"), ((0, 2),)), 4)
    assert isinstance(found, StructuredPruningMaskCreator)
    assert found.tensor_group_idxs == [[0, 2], [1], [3]]
    assert type(creator_of(NM(1, 4))) is NMPruningMaskCreator
    assert type(creator_of(FOUR_BLOCK)) is FourBlockMaskCreator
    assert type(creator_of(Runs(4, "max"))) is PatternMaskCreator
    assert type(creator_of(RowMajorBlock(1, 4))) is BlockMaskCreator
