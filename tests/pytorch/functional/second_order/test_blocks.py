from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.second_order.blocks import LAYOUTS, block_layout

SHAPES = st.one_of(
    st.tuples(st.integers(1, 30)),
    st.tuples(st.integers(1, 9), st.integers(1, 12)),
    st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)),
)


@settings(deadline=None, max_examples=150)
@given(SHAPES, st.integers(1, 20), st.sampled_from(LAYOUTS), st.integers(1, 5), st.integers(0, 2))
def test_every_weight_has_one_place(shape, block_size, kind, group, batch):
    layout = block_layout(shape, block_size, kind, group=group)
    tensor = torch.arange(1.0, math.prod(shape) + 1).reshape(shape).expand(*[2] * batch, *shape)
    blocks = layout.to_blocks(tensor)
    assert blocks.shape == (*[2] * batch, layout.num_blocks, layout.block_size)
    assert torch.equal(layout.from_blocks(blocks), tensor)
    assert int(layout.places().sum()) == math.prod(shape)
    assert torch.equal(layout.to_blocks(tensor) != 0, layout.places().expand_as(blocks))
    assert layout.block_size % group == 0


@settings(deadline=None, max_examples=50)
@given(SHAPES, st.integers(1, 20))
def test_divisor_is_the_smallest_that_is_large_enough(shape, block_size):
    size = math.prod(shape)
    layout = block_layout(shape, block_size, "divisor")
    fits = [b for b in range(1, size + 1) if size % b == 0 and b >= min(block_size, size)]
    assert layout.block_size == fits[0]
    assert bool(layout.places().all())


def test_padded_fills_up_the_last_block():
    layout = block_layout((3, 5), 4)
    assert (layout.num_blocks, layout.block_size) == (4, 4)
    assert layout.to_blocks(torch.arange(15).reshape(3, 5))[-1].tolist() == [12, 13, 14, 0]


def test_a_row_block_stays_in_one_row_and_rows_are_cut_evenly():
    layout = block_layout((2, 10), 4, "row")
    blocks = layout.to_blocks(torch.arange(1, 21).reshape(2, 10))
    assert blocks.tolist() == [
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [9, 10, 0, 0],
        [11, 12, 13, 14],
        [15, 16, 17, 18],
        [19, 20, 0, 0],
    ]


def test_groups_of_a_convolution_run_along_the_inputs():
    weight = torch.arange(2 * 4 * 3 * 3).reshape(2, 4, 3, 3)
    layout = block_layout(weight.shape, 8, group=4)
    first = layout.to_blocks(weight)[0]
    assert torch.equal(first[:4], weight[0, :, 0, 0])
    assert torch.equal(first[4:], weight[0, :, 0, 1])


def test_a_torn_group_is_filled_up_with_zeros():
    layout = block_layout((2, 3), 4, group=2)
    assert layout.to_blocks(torch.arange(1, 7).reshape(2, 3)).tolist() == [
        [1, 2, 3, 0],
        [4, 5, 6, 0],
    ]


def test_a_block_is_never_larger_than_the_weight():
    assert block_layout((3, 2), 100).block_size == 6
    assert block_layout((3, 2), 100, "divisor").block_size == 6
    assert block_layout((3, 2), 100, "row").block_size == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0, 3), 4), "no entries"),
        (((), 4), "no entries"),
        (((2, 3), 0), "at least 1"),
        (((2, 3), 4, "columns"), "padded"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        block_layout(*arguments)


def test_whole_groups_must_divide_the_inputs():
    with pytest.raises(ValueError, match=r"multiple of 4.*\(8, 6\)"):
        block_layout((8, 6), 4, group=4, whole_groups=True)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), found \(3, 2\)"):
        block_layout((2, 3), 4).to_blocks(torch.zeros(3, 2))
