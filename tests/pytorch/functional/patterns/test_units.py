from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseml.pytorch.functional.budgets import Counts, Global, Uniform
from sparseml.pytorch.functional.patterns import FILTER, Member, Slice, Together, Units
from sparseml.pytorch.functional.select import check_selection, select

HEADS, WIDTH = 4, 6  # of a model dimension of 8


def random_scores(shapes, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(shape, generator=generator) for shape in shapes]


def pruned(masks: list[Tensor]) -> list[int]:
    return [int((~mask).sum()) for mask in masks]


def heads() -> Units:
    """A fused qkv with its bias, and the output projection."""
    of_rows = torch.arange(HEADS).repeat_interleave(WIDTH)
    return Units(
        (
            (
                Member(0, 0, of_rows.repeat(3)),
                Member(1, 0, of_rows.repeat(3)),
                Member(2, 1, of_rows),
            ),
        )
    )


HEAD_SHAPES = [(3 * HEADS * WIDTH, 8), (3 * HEADS * WIDTH,), (8, HEADS * WIDTH)]


def test_heads_of_a_fused_layer_go_in_all_its_thirds_and_in_what_reads_them():
    scores = random_scores(HEAD_SHAPES)
    masks = select(scores, heads(), Uniform(), 0.5)
    rows = masks[0].all(1).reshape(3, HEADS, WIDTH)
    assert torch.equal(rows, (masks[0].any(1)).reshape(3, HEADS, WIDTH))
    kept = rows.all(2)
    assert torch.equal(kept, rows.any(2)) and kept.sum(1).tolist() == [2, 2, 2]
    assert torch.equal(masks[1].reshape(3, HEADS, WIDTH), rows)
    assert torch.equal(masks[2].all(0).reshape(HEADS, WIDTH).all(1), kept[0])
    means = [
        torch.cat(
            [
                scores[0].reshape(3, HEADS, -1)[:, head].flatten(),
                scores[1].reshape(3, HEADS, -1)[:, head].flatten(),
                scores[2].reshape(8, HEADS, -1)[:, head].flatten(),
            ]
        ).mean()
        for head in range(HEADS)
    ]
    assert torch.equal(kept[0], torch.stack(means) > torch.stack(means).sort().values[1])


@pytest.mark.parametrize("reduce", ["mean", "sum", "l2", "max", "min"])
def test_a_group_of_one_tensor_is_a_slice(reduce):
    scores = random_scores([(6, 5, 2)])
    units = Units(((Member(0, 1, torch.arange(5)),),), reduce)
    for sparsity in (0.2, 0.6):
        expected = select(scores, Slice(1, reduce), Uniform(), sparsity)
        assert torch.equal(select(scores, units, Uniform(), sparsity)[0], expected[0])


def test_groups_say_what_tensors_that_go_together_say():
    shapes = [(6, 4), (6,), (12, 2)]
    scores = random_scores(shapes)
    rows = torch.arange(6)
    units = Units(
        ((Member(0, 0, rows), Member(1, 0, rows), Member(2, 0, rows.repeat_interleave(2))),)
    )
    together = Together(FILTER, ((0, 1, 2),))
    for sparsity in (1 / 6, 0.5, 5 / 6):
        masks = select(scores, units, Uniform(), sparsity)
        assert pruned(masks) == pruned(select(scores, together, Uniform(), sparsity))


def test_slices_of_no_unit_stay():
    scores = [torch.zeros(6, 2)]
    units = Units(((Member(0, 0, torch.tensor([-1, 0, 1, -1, 1, 0])),),))
    mask = select(scores, units, Uniform(), 1 / 3)[0]
    assert mask.all(1).int().tolist() == [1, 1, 0, 1, 0, 1]
    assert pruned(select(scores, units, Uniform(), 2 / 3)) == [8]
    with pytest.raises(ValueError, match="only 8 belong to units that can go"):
        select(scores, units, Uniform(), 1.0)
    with pytest.raises(ValueError, match="only 8 belong to units that can go"):
        check_selection([(6, 2)], units, Uniform(), 1.0)


def test_units_of_different_sizes_are_counted_in_weights():
    scores = random_scores([(10, 4)])
    units = Units(((Member(0, 0, torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3])),),))
    for sparsity in (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9):
        assert pruned(select(scores, units, Uniform(), sparsity)) == [round(40 * sparsity)]


def crossing(rows: int, cols: int) -> Units:
    """Rows by one group, columns by another."""
    return Units(((Member(0, 0, torch.arange(rows)),), (Member(0, 1, torch.arange(cols)),)))


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 12),
    cols=st.integers(1, 12),
    sparsity=st.floats(0.0, 1.0),
    seed=st.integers(0, 1000),
    budget=st.sampled_from([Uniform(), Global()]),
)
def test_rows_and_columns_together_make_the_sparsity(rows, cols, sparsity, seed, budget):
    scores = random_scores([(rows, cols)], seed)
    mask = select(scores, crossing(rows, cols), budget, sparsity)[0]
    kept_rows, kept_cols = mask.any(1), mask.any(0)
    assert torch.equal(mask, kept_rows.unsqueeze(1) & kept_cols)
    assert abs(int((~mask).sum()) - rows * cols * sparsity) <= max(rows, cols) / 2 + 1


def test_a_stream_through_square_layers():
    # both dimensions of each weight are the stream's
    width = 12
    stream = torch.arange(width)
    pattern = Units(
        (
            (
                Member(0, 0, stream),
                Member(0, 1, stream),
                Member(1, 0, stream),
                Member(1, 1, stream),
                Member(2, 0, stream),
            ),
        )
    )
    scores = random_scores([(width, width), (width, width), (width,)])
    masks = select(scores, pattern, Uniform(), 0.5)
    # 9 of 12 stay: 81 of 144, and 8: 64 of 144
    kept = masks[2]
    assert int(kept.sum()) == min((8, 9), key=lambda n: abs(2 * (144 - n * n) + 12 - n - 150))
    for mask in masks[:2]:
        assert torch.equal(mask, kept.unsqueeze(1) & kept)


def test_layers_that_share_nothing_have_their_sparsity_each():
    pattern = Units(
        tuple(
            (Member(place, dim, torch.arange(size)),)
            for place, shape in enumerate([(8, 6), (10, 20)])
            for dim, size in enumerate(shape)
        )
    )
    scores = [random_scores([(8, 6)])[0] + 5, random_scores([(10, 20)])[0]]
    uniform = pruned(select(scores, pattern, Uniform(), 0.5))
    assert abs(uniform[0] - 24) <= 4 and abs(uniform[1] - 100) <= 10
    each = pruned(select(scores, pattern, Uniform(), [0.25, 0.75]))
    assert abs(each[0] - 12) <= 4 and abs(each[1] - 150) <= 10
    together = pruned(select(scores, pattern, Global(), 0.5))
    assert together[0] == 0 and abs(together[1] - 124) <= 10


@settings(deadline=None, max_examples=30)
@given(share=st.floats(0.0, 1.0), sparsity=st.floats(0.0, 1.0), seed=st.integers(0, 1000))
def test_what_is_gone_counts_where_groups_cross(share, sparsity, seed):
    scores = random_scores([(8, 10)], seed)
    live = [torch.rand(8, 10, generator=torch.Generator().manual_seed(seed)) >= share]
    mask = select(scores, crossing(8, 10), Uniform(), sparsity, live=live)[0]
    assert not (mask & ~live[0]).any()
    wanted = max(80 * sparsity, int((~live[0]).sum()))
    assert abs(int((~mask).sum()) - wanted) <= 6


def test_counts_where_groups_cross():
    scores = random_scores([(8, 10)])
    pattern = crossing(8, 10)
    masks = select(scores, pattern, Counts((3,), of="units"), 0.0)
    assert pruned(masks) == [80 - 5 * 7]
    with pytest.raises(ValueError, match="count units"):
        select(scores, pattern, Counts((30,)), 0.0)


def test_pruned_weights_are_counted_without_masks():
    scores = random_scores([(8, 10), (10, 3)])
    pattern = Units(
        (
            (Member(0, 1, torch.arange(10)), Member(1, 0, torch.arange(10))),
            (Member(0, 0, torch.arange(8) // 2),),
        )
    )
    generator = torch.Generator().manual_seed(1)
    keep = [torch.rand(10, generator=generator) > 0.4, torch.rand(4, generator=generator) > 0.4]
    masks = pattern.masks(keep, scores)
    shapes = [score.shape for score in scores]
    assert pattern.pruned(keep, shapes, None) == pruned(masks)
    live = [torch.rand(shape, generator=generator) > 0.3 for shape in shapes]
    both = [mask & there for mask, there in zip(masks, live, strict=True)]
    assert pattern.pruned(keep, shapes, live) == pruned(both)


def test_only_whole_groups_can_be_chosen():
    scores = random_scores([*HEAD_SHAPES, (4, 4)])
    pattern = Units((*heads().groups, (Member(3, 0, torch.arange(4)),)))
    masks = select(scores, pattern, Uniform(), 0.5, only=[3])
    assert pruned(masks) == [0, 0, 0, 8]
    masks = select(scores, pattern, Uniform(), 0.5, only=[2, 0, 1])
    assert torch.equal(masks[0], select(scores, pattern, Uniform(), 0.5)[0]) and masks[3].all()
    with pytest.raises(ValueError, match=r"group 0 go together, but only 1 of"):
        select(scores, pattern, Uniform(), 0.5, only=[1, 3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Units(((Member(0, 0, torch.tensor([0, 2])),),)), "numbered from 0 on"),
        (lambda: Units((), "median"), "reduce must be one of"),
        (lambda: crossing(4, 4).blank([(4, 5)]), r"4 slices, but it has shape \(4, 5\)"),
        (lambda: crossing(4, 4).blank([(4,)]), "along dimension 1 of tensor 0"),
        (lambda: crossing(4, 4).blank([]), "has tensor 0, but there are 0"),
        (
            lambda: select(
                random_scores([(8, 6), (6, 8)]),
                Units(((Member(0, 0, torch.arange(8)), Member(1, 1, torch.arange(8))),)),
                Uniform(),
                [0.5, 0.25],
            ),
            r"tensors 0, 1 go together and need one target",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
