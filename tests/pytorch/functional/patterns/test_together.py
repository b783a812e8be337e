from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.budgets import Global, Uniform
from sparseml.pytorch.functional.patterns import CHANNEL, FILTER, Slice, Together
from sparseml.pytorch.functional.select import check_selection, select


def lists(masks):
    return [mask.int().tolist() for mask in masks]


def test_members_of_a_group_are_masked_alike_by_summed_scores():
    scores = [torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[9.0], [1.0], [1.0]])]
    masks = select(scores, Together(FILTER, ((0, 1),)), Uniform(), 1 / 3)
    # sums are 10, 3, 4
    assert lists(masks) == [[[1], [0], [1]]] * 2


def test_a_multiple_stands_for_neighbours():
    small = torch.tensor([[1.0, 5.0]])  # two channels
    flattened = torch.tensor([[9.0, 9.0, 9.0, 1.0, 1.0, 1.0]])  # three positions of each
    pattern = Together(Slice(1, "l2"), ((0, 1),))
    masks = select([small, flattened], pattern, Uniform(), 0.5)
    # 1 + mean 9 = 10 against 5 + mean 1 = 6
    assert lists(masks) == [[[1, 0]], [[1, 1, 1, 0, 0, 0]]]
    pool = pattern.pools([small, flattened])[0]
    assert (pool.size, pool.weights, pool.members) == (4, 8, (0, 1))


@pytest.mark.parametrize(
    ("score", "kept"), [("sum", [1, 0, 0]), ("matrices", [0, 0, 1]), ("l2", [0, 1, 0])]
)
def test_what_counts_in_a_group(score, kept):
    # together 8.2, 8.1, 7.5; without the vector 4, 3.9, 4.5; as norms 5.26, 5.73, 5.02
    scores = [
        torch.tensor([[3.0], [0.0], [4.0]]),
        torch.tensor([[1.0], [3.9], [0.5]]),
        torch.tensor([4.2, 4.2, 3.0]),
    ]
    masks = select(scores, Together(FILTER, ((0, 1, 2),), score), Uniform(), 2 / 3)
    assert lists(masks)[2] == kept
    with pytest.raises(ValueError, match="score must be one of sum, matrices, l2, found 'mean'"):
        Together(FILTER, (), "mean")


def test_groups_of_vectors_alone_still_have_scores():
    masks = select([torch.tensor([3.0, 1.0])], Together(FILTER, (), "matrices"), Uniform(), 0.5)
    assert lists(masks) == [[1, 0]]


def test_depthwise_inputs_are_left_unmasked():
    scores = [torch.rand(8, 1, 3, 3), torch.rand(4, 8, 1, 1), torch.rand(6, 1)]
    for groups in ((), ((0, 1),), ((0, 1, 2),)):
        masks = select(scores, Together(CHANNEL, groups), Uniform(), 0.5)
        assert [int((~mask).sum()) for mask in masks] == [0, 16, 0]
    # a target of all weights together counts these, too
    masks = select(scores, Together(CHANNEL, ((0, 1),)), Global(), 0.2)
    assert [int((~mask).sum()) for mask in masks] == [0, 20, 0]  # of 110, nearest to 22
    with pytest.raises(ValueError, match="cannot be pruned"):
        select(scores, Together(CHANNEL), Global(), 0.5)


def test_tensors_in_no_group_are_on_their_own():
    scores = [torch.arange(4.0), torch.arange(4.0, 0, -1), torch.arange(4.0)]
    masks = select(scores, Together(FILTER, ((0, 2),)), Uniform(), 0.5)
    assert lists(masks) == [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]
    masks = select(scores, Together(FILTER, ((0, 2),)), Uniform(), [0.5, 0.25, 0.5])
    assert lists(masks) == [[0, 0, 1, 1], [1, 1, 1, 0], [0, 0, 1, 1]]


def test_a_global_budget_weighs_the_groups():
    scores = [torch.rand(4, 30), torch.rand(4, 10), torch.rand(20, 2) + 1]
    masks = select(scores, Together(FILTER, ((0, 1),)), Global(), 0.5)
    assert [int((~mask).sum()) for mask in masks] == [60, 20, 20]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000), before=st.floats(0, 0.6), target=st.floats(0, 1))
def test_what_is_gone_counts_in_all_members(seed, before, target):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(6, 4), (6,), (12, 2), (5, 3)]
    scores = [torch.rand(shape, generator=generator) for shape in shapes]
    live = [torch.rand(shape, generator=generator) >= before for shape in shapes]
    masks = select(scores, Together(FILTER, ((0, 1, 2),)), Uniform(), target, live=live)
    for members, largest in (((0, 1, 2), 9), ((3,), 3)):
        size = sum(scores[place].numel() for place in members)
        gone = sum(int((~live[place]).sum()) for place in members)
        pruned = sum(int((~masks[place]).sum()) for place in members)
        assert abs(pruned - max(size * target, gone)) <= largest / 2 + 1


def test_only_whole_groups_can_be_chosen():
    scores = [torch.rand(4, 4) for _ in range(4)]
    pattern = Together(FILTER, ((0, 2), (1, 3)))
    masks = select(scores, pattern, Uniform(), 0.5, only=[3, 1])
    assert [int((~mask).sum()) for mask in masks] == [0, 8, 0, 8]
    assert torch.equal(masks[1], masks[3])
    with pytest.raises(ValueError, match=r"tensors 0, 2 go together, but only 0 of"):
        select(scores, pattern, Uniform(), 0.5, only=[0, 1, 3])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"each tensor is in one group, found 1 in several"):
        Together(FILTER, ((0, 1), (1, 2)))
    with pytest.raises(ValueError, match=r"multiples of the smallest, found \[2, 3\]"):
        select([torch.rand(2, 2), torch.rand(3, 2)], Together(FILTER, ((0, 1),)), Uniform(), 0.5)
    with pytest.raises(ValueError, match=r"multiples of the smallest, found \[2, 3\]"):
        check_selection([(2, 2), (3, 2)], Together(FILTER, ((0, 1),)), Uniform(), 0.5)
    with pytest.raises(ValueError, match="a channel needs a dimension 1"):
        Together(CHANNEL).check((4,))
    assert str(Together(CHANNEL)) == "channel"
