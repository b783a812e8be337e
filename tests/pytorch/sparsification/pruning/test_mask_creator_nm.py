from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.budgets import Uniform
from sparseml.pytorch.functional.patterns import NM
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.sparsification.pruning import NMPruningMaskCreator


def test_known_mask():
    values = torch.tensor([[1.0, -5, 2, 3], [4, 1, 0, -2]])
    masks = NMPruningMaskCreator(2, 4).create_sparsity_masks([values], 0.5)
    assert masks[0].tolist() == [[0, 1, 0, 1], [1, 0, 0, 1]]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (4, 8), (1, 2)])
@pytest.mark.parametrize("shape", [(8, 16), (8, 16, 3, 3), (8, 4, 2, 2)])
def test_n_of_every_m_in_the_flattened_mask(n, m, shape):
    if shape[1] % m:
        shape = (shape[0], m, *shape[2:])
    mask = NMPruningMaskCreator(n, m).create_sparsity_masks([torch.randn(shape)], 1 - n / m)[0]
    assert set(mask.flatten().view(-1, m).sum(1).tolist()) == {float(n)}


def test_targets_of_zero_and_others():
    values = torch.randn(4, 8)
    creator = NMPruningMaskCreator(2, 4)
    assert creator.create_sparsity_masks([values], 0.0)[0].min() == 1
    assert creator.create_sparsity_masks([values], [0.0])[0].min() == 1
    assert creator.create_sparsity_masks([values], 0.509)[0].mean() == 0.5
    with pytest.raises(ValueError, match=r"a 2:4 mask has a sparsity of 0\.5, found 0\.8"):
        creator.create_sparsity_masks([values], 0.8)
    with pytest.raises(ValueError, match=r"found 0\.0"):
        creator.create_sparsity_masks([values, values], [0.5, 0.0])


def test_shapes_that_cannot_be_grouped():
    creator = NMPruningMaskCreator(2, 4)
    with pytest.raises(ValueError, match=r"shape \(3, 3\) cannot be cut into groups of 4"):
        creator.create_sparsity_masks([torch.randn(3, 3)], 0.5)
    with pytest.raises(NotImplementedError, match="two or four dimensions, found 3"):
        creator.create_sparsity_masks([torch.randn(4, 4, 4)], 0.5)
    with pytest.raises(ValueError, match="NaN"):
        creator.create_sparsity_masks([torch.full((2, 4), float("nan"))], 0.5)


@pytest.mark.parametrize("shape", [(8, 16), (8, 16, 3), (8, 16, 3, 3), (2, 4, 2, 2, 2)])
def test_masks_for_parameters_have_their_layout(shape):
    scores = torch.rand(shape)
    mask = NMPruningMaskCreator(2, 4).create_parameter_masks([scores], 0.5)[0]
    assert mask.shape == scores.shape
    assert torch.equal(mask, select([scores], NM(2, 4), Uniform(), 0.5)[0].float())


def test_masks_for_parameters_go_by_the_score_and_not_by_its_size():
    # a movement score of -9 is the worst there is, and -inf means pruned already
    scores = torch.tensor([[-9.0, 0.1, float("-inf"), 0.2]])
    mask = NMPruningMaskCreator(2, 4).create_parameter_masks([scores], 0.5)[0]
    assert mask.tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize("global_sparsity", [False, True])
def test_targets_on_the_way_put_a_share_of_the_groups_in_order(global_sparsity):
    scores = [torch.rand(4, 16), torch.rand(4, 16) + 1]
    creator = NMPruningMaskCreator(2, 4)
    masks = creator.create_parameter_masks(scores, 0.25, global_sparsity)
    zeros = [int((mask == 0).sum()) for mask in masks]
    assert zeros == ([32, 0] if global_sparsity else [16, 16])
    groups = torch.cat(masks).view(-1, 4).sum(1)
    assert set(groups.tolist()) == {2.0, 4.0}
    with pytest.raises(ValueError, match=r"reaches a sparsity of 0\.5"):
        creator.create_parameter_masks(scores, 0.6, global_sparsity)
