"""The engine against SparseML 1.x's mask creators, bit by bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseml.pytorch.functional.budgets import Global, Uniform
from sparseml.pytorch.functional.patterns import Slice, Together, parse_pattern
from sparseml.pytorch.functional.select import select
from sparseml.pytorch.sparsification.pruning import StructuredPruningMaskCreator
from sparseml.pytorch.sparsification.pruning.mask_creator import get_mask_creator

SHAPES = [
    [(8, 16)],
    [(8, 16), (4, 8)],
    [(8, 16, 3, 3), (4, 8)],
    [(16, 8, 2), (8, 8), (4, 24)],
]
MASK_TYPES = [
    "unstructured",
    "block4",
    "2:4",
    "1:4",
    "4:8",
    "filter",
    "channel",
    "4x1",
    "1x4",
    "2x2",
    [1, 4],
    [2, 2],
    [4, -1],
]
TARGETS = st.one_of(
    st.floats(0.0, 1.0), st.sampled_from([0.0, 0.05, 0.1, 0.25, 0.3, 0.5, 0.7, 0.9, 1.0])
)


def random_scores(shapes, kind: str, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if kind == "ties":
        return [torch.randint(0, 3, shape, generator=generator).float() for shape in shapes]
    scores = [torch.randn(shape, generator=generator) for shape in shapes]
    if kind == "zeros":
        zeros = [torch.rand(shape, generator=generator) < 0.7 for shape in shapes]
        return [score.abs() * ~zero for score, zero in zip(scores, zeros, strict=True)]
    return [score.double() for score in scores] if kind == "double" else scores


@settings(deadline=None, max_examples=400)
@given(
    shapes=st.sampled_from(SHAPES),
    mask_type=st.sampled_from(MASK_TYPES),
    target=TARGETS,
    together=st.booleans(),
    kind=st.sampled_from(["normal", "ties", "zeros", "double"]),
    seed=st.integers(0, 1000),
)
def test_masks_are_those_of_the_creators(shapes, mask_type, target, together, kind, seed):
    scores = random_scores(shapes, kind, seed)
    pattern, creator = parse_pattern(mask_type), get_mask_creator(mask_type)
    sizes = {pool.size for pool in pattern.blank(shapes) if pool.weights}
    if together and len(sizes) > 1:
        return  # the creators count units there
    target *= pattern.full_sparsity
    budget = Global() if together else Uniform()
    old = creator.create_parameter_masks(scores, target, together)
    new = select(scores, pattern, budget, target, spread_ties=True)
    assert [mask.dtype for mask in new] == [torch.bool] * len(shapes)
    assert all(torch.equal(a.bool(), b) for a, b in zip(old, new, strict=True))


@settings(deadline=None, max_examples=60)
@given(
    structure=st.sampled_from(["filter", "channel"]),
    reduce=st.sampled_from(["l2", "mean"]),
    groups=st.sampled_from([(), ((0, 1), (2, 3, 4)), ((0, 3), (1, 4), (2,))]),
    target=TARGETS,
    kind=st.sampled_from(["normal", "ties", "zeros"]),
    seed=st.integers(0, 1000),
)
def test_structures_are_those_of_the_creator(structure, reduce, groups, target, kind, seed):
    shapes = [(4, 8, 3, 3), (8, 1, 3, 3), (8, 4), (4, 16), (12, 4)]
    if structure == "filter" and groups:
        shapes = [(4, 8), (8, 3), (6, 1, 3), (12, 2), (24, 2)]
        groups = ((0, 1), (2, 3, 4))
    if structure == "channel" and groups:
        groups = ((0, 1), (2, 3, 4))
    scores = random_scores(shapes, kind, seed)
    listed = [list(group) for group in groups] or None
    creator = StructuredPruningMaskCreator(structure, reduce, listed)
    old = creator.create_sparsity_masks(scores, target)
    pattern = Together(Slice(0 if structure == "filter" else 1, reduce), groups)
    new = select(scores, pattern, Uniform(), target, spread_ties=True)
    assert all(torch.equal(a.bool(), b) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize("count", [3, 100_000])
def test_the_same_zeros_are_drawn_of_very_many(count):
    scores = [torch.zeros(1_200_000), torch.rand(10)]
    target = count / 1_200_010
    for together, budget in ((False, Uniform()), (True, Global())):
        old = get_mask_creator("unstructured").create_parameter_masks(scores, target, together)
        new = select(scores, parse_pattern("unstructured"), budget, target, spread_ties=True)
        assert all(torch.equal(a.bool(), b) for a, b in zip(old, new, strict=True))
