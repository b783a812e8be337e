from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification.pruning import StructuredPruningMaskCreator


def norms(tensor, dim):
    return tensor.pow(2).sum([d for d in range(tensor.ndim) if d != dim]).sqrt()


@pytest.mark.parametrize(("structure_type", "dim"), [("filter", 0), ("channel", 1)])
@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 3, 3)])
def test_whole_slices_of_lowest_norm_go(structure_type, dim, shape):
    scores = torch.rand(shape)
    creator = StructuredPruningMaskCreator(structure_type)
    mask = creator.create_sparsity_masks([scores], 0.5)[0]
    kept = norms(mask, dim) > 0
    assert int((~kept).sum()) == shape[dim] // 2
    assert norms(scores, dim)[kept].min() > norms(scores, dim)[~kept].max()
    assert int((mask == 0).sum()) == scores.numel() // 2


def test_members_of_a_group_are_masked_alike_by_summed_scores():
    scores = [torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[9.0], [1.0], [1.0]])]
    creator = StructuredPruningMaskCreator("filter", tensor_group_idxs=[[0, 1]])
    masks = creator.create_sparsity_masks(scores, 1 / 3)
    # sums are 10, 3, 4
    assert [mask.flatten().tolist() for mask in masks] == [[1, 0, 1], [1, 0, 1]]


def test_a_multiple_stands_for_neighbours():
    small = torch.tensor([[1.0, 5.0]])  # two channels
    flattened = torch.tensor([[9.0, 9.0, 9.0, 1.0, 1.0, 1.0]])  # three positions of each
    creator = StructuredPruningMaskCreator("channel", tensor_group_idxs=[[0, 1]])
    masks = creator.create_sparsity_masks([small, flattened], 0.5)
    # 1 + mean 9 = 10 against 5 + mean 1 = 6
    assert masks[0].tolist() == [[1, 0]]
    assert masks[1].tolist() == [[1, 1, 1, 0, 0, 0]]


def test_depthwise_inputs_are_left_unmasked():
    depthwise, pointwise = torch.rand(8, 1, 3, 3), torch.rand(4, 8, 1, 1)
    creator = StructuredPruningMaskCreator("channel", tensor_group_idxs=[[0, 1]])
    masks = creator.create_sparsity_masks([depthwise, pointwise], 0.5)
    assert masks[0].min() == 1
    assert masks[1].mean() == 0.5


def test_vectors_have_filters():
    creator = StructuredPruningMaskCreator("filter")
    assert creator.create_sparsity_masks([torch.tensor([-3.0, 1.0])], 0.5)[0].tolist() == [1, 0]


def test_settings_can_be_read_and_changed():
    creator = StructuredPruningMaskCreator("filter")
    assert creator.structure_type == str(creator) == "filter"
    assert creator.tensor_group_idxs is None
    creator.set_tensor_group_idxs([(0, 1), (2,)])
    assert creator.tensor_group_idxs == [[0, 1], [2]]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"structure_type must be one of .*found 'row'"):
        StructuredPruningMaskCreator("row")
    creator = StructuredPruningMaskCreator("channel")
    with pytest.raises(ValueError, match="global_sparsity must be False"):
        creator.create_sparsity_masks([torch.rand(2, 2)], 0.5, global_sparsity=True)
    with pytest.raises(ValueError, match="needs a dimension 1"):
        creator.create_sparsity_masks([torch.rand(2)], 0.5)
    for groups in ([[0]], [[0, 1], [1]], [[0, 2]]):
        creator.set_tensor_group_idxs(groups)
        with pytest.raises(RuntimeError, match="every index from 0 to 1 exactly once"):
            creator.create_sparsity_masks([torch.rand(2, 2)] * 2, 0.5)
    creator.set_tensor_group_idxs([[0, 1]])
    with pytest.raises(ValueError, match=r"multiples of the smallest, found \[2, 3\]"):
        creator.create_sparsity_masks([torch.rand(2, 2), torch.rand(2, 3)], 0.5)


def test_members_with_different_targets_lose_as_much_as_each_says():
    scores = [torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[9.0], [1.0], [1.0]])]
    creator = StructuredPruningMaskCreator("filter", tensor_group_idxs=[[0, 1]])
    masks = creator.create_sparsity_masks(scores, [1 / 3, 2 / 3])
    assert [mask.flatten().tolist() for mask in masks] == [[1, 0, 1], [1, 0, 0]]
    with pytest.raises(ValueError, match="2 tensors, but 3 target sparsities"):
        creator.create_sparsity_masks(scores, [0.1, 0.2, 0.3])


def test_slices_can_be_spread_over_tensors_with_more():
    creator = StructuredPruningMaskCreator("channel")
    assert creator.group_tensor(torch.tensor([[3.0, 0.0], [4.0, 1.0]])).tolist() == [5.0, 1.0]
    mask = creator._map_mask_to_tensor(torch.tensor([1.0, 0.0]), torch.Size((2, 6)))
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0]] * 2
    assert creator._map_mask_to_tensor(torch.tensor([0.0]), torch.Size((6, 1, 3))).min() == 1
